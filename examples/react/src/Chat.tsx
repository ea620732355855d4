import { useState } from "react";
import { newId, Warmwire } from "warmwire";
import { useWarmwire } from "warmwire/react";

const client = new Warmwire(); // of the page's own address
const session = (sessionStorage.session ??= newId()); // a reload comes back to the same conversation

export function Chat() {
  const { messages, status, reconnecting, send, stop } = useWarmwire({ client, session });
  const [text, setText] = useState("");
  const busy = status === "waiting" || status === "streaming";
  return (
    <main>
      {messages.map((message) => (
        <p key={message.id} className={message.role}>
          <b>{message.role}</b> {message.text}
          {message.role === "assistant" && message.error && <em>{message.error}</em>}
        </p>
      ))}
      <form
        onSubmit={(submitted) => {
          submitted.preventDefault();
          if (!text) return; // Enter in an empty field, while there is a Stop in place of Send
          setText("");
          send(text);
        }}
      >
        <input aria-label="Message" value={text} onChange={({ target }) => setText(target.value)} />
        {busy ? <button type="button" onClick={stop}>Stop</button> : <button disabled={!text}>Send</button>}
      </form>
      <output>{reconnecting ? "reconnecting" : status}</output>
    </main>
  );
}
