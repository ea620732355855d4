import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The page and the API have one origin: the browser asks nobody else, and the edge need not allow another one.
const edge = process.env.WARMWIRE_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  plugins: [react()],
  resolve: { dedupe: ["react"] }, // the client is linked here, and must not bring the React of its tests
  server: { host: "127.0.0.1", proxy: { "/v1": { target: edge, ws: true, changeOrigin: true, headers: { origin: edge } } } },
});
