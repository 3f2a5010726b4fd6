// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from "node:fs";

import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

// `make ui-dev` sets it to the address of a running `novitai demo` or `novitai serve`.
const server = process.env.NOVITAI_URL ?? "http://127.0.0.1:8080";

// The server checks that requests of a session name its own host and origin.
const proxy = Object.fromEntries(
  ["/api", "/health", "/metrics", "/openapi.json", "/docs"].map((path) => [
    path,
    { target: server, changeOrigin: true, headers: { origin: server } },
  ]),
);

/** The library of the API's page, as its authors built it; the name of a file has its version. */
function swaggerUi(): Plugin {
  const folder = new URL("node_modules/swagger-ui-dist/", import.meta.url);
  const read = (name: string) => readFileSync(new URL(name, folder));
  const { version } = JSON.parse(read("package.json").toString()) as { version: string };
  const files = {
    "swagger-ui-bundle.js": `swagger-ui-${version}.js`,
    "swagger-ui.css": `swagger-ui-${version}.css`,
    "swagger-ui-bundle.js.LICENSE.txt": "swagger-ui-bundle.js.LICENSE.txt",
    LICENSE: "LICENSE",
    NOTICE: "NOTICE",
  };
  return {
    name: "swagger-ui",
    apply: "build",
    generateBundle() {
      for (const [name, shipped] of Object.entries(files)) {
        this.emitFile({ type: "asset", fileName: `docs/${shipped}`, source: read(name) });
      }
    },
  };
}

export default defineConfig({
  plugins: [react(), swaggerUi()],
  server: { proxy, host: "127.0.0.1" },
  build: {
    outDir: "../src/novitai/web/static",
    emptyOutDir: true,
    target: "es2022",
    // The policy of the pages has no inline scripts and styles.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: { fileName: "licenses.md" },
    reportCompressedSize: true,
  },
});
