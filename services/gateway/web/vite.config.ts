import { defineConfig } from "vite";

// The gateway serves what this builds; paths are absolute because the page
// lives under /room/{name} too.
export default defineConfig({
  base: "/",
  build: { target: "es2022", outDir: "dist", emptyOutDir: true, chunkSizeWarningLimit: 900 },
});
