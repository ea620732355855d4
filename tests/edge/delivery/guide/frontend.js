const eventSource = new EventSource(
    `/chat/stream?message=${msg}&session_id=${sessionId}`
);

eventSource.onmessage = (event) => {
    if (event.data === "[DONE]") {
        eventSource.close();
        return;
    }

    const chunk = JSON.parse(event.data);
    chatUI.appendText(chunk.delta.text);  // Like ChatGPT!
};
