// SPDX-License-Identifier: Apache-2.0
// Shows the OpenAPI document. Text is inserted as text, never as markup.
"use strict";
const METHODS = ["get", "post", "put", "patch", "delete"];

function make(name, parts = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(parts)) node[key] = value;
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const some = schema.anyOf || schema.oneOf || schema.allOf;
  if (some) return some.map(typeOf).join(" | ");
  if (schema.type === "array") return typeOf(schema.items) + "[]";
  return [schema.type, schema.format].filter(Boolean).join(", ");
}

function limits(schema) {
  const names = ["default", "minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "pattern"];
  return names.filter((name) => schema[name] !== undefined)
    .map((name) => name + " " + JSON.stringify(schema[name])).join(", ");
}

function table(heads, rows) {
  if (!rows.length) return null;
  const row = (name, cells) => make("tr", {}, ...cells.map((cell) => make(name, {}, cell)));
  return make("table", {}, row("th", heads), ...rows.map((cells) => row("td", cells)));
}

function code(text) { return make("code", { textContent: text }); }

function json(value) { return make("pre", { textContent: JSON.stringify(value, null, 2) }); }

function fields(schema) {
  const required = new Set(schema.required || []);
  return table(["Field", "Type", ""], Object.entries(schema.properties || {}).map(([name, field]) => [
    code(name + (required.has(name) ? " *" : "")), code(typeOf(field)),
    [field.description, limits(field)].filter(Boolean).join(" – "),
  ]));
}

function answers(responses) {
  return Object.entries(responses).map(([status, answer]) => {
    const content = (answer.content || {})["application/json"] || {};
    const examples = Object.entries(content.examples || {})
      .flatMap(([name, example]) => [make("p", {}, code(name)), json(example.value)]);
    return make("details", {},
      make("summary", {}, make("strong", { textContent: status + " " }), answer.description + " ", code(typeOf(content.schema))),
      ...examples);
  });
}

function operation(path, method, spec) {
  const body = spec.requestBody && spec.requestBody.content["application/json"].schema;
  const parameters = (spec.parameters || []).map((parameter) => [
    code(parameter.name + (parameter.required ? " *" : "")), parameter.in, code(typeOf(parameter.schema)),
    [parameter.description, limits(parameter.schema)].filter(Boolean).join(" – "),
  ]);
  return make("details", { id: spec.operationId },
    make("summary", {},
      make("span", { className: "method", textContent: method.toUpperCase() }), code(path), " " + spec.summary,
      make("span", { className: "scope", textContent: spec["x-required-scope"] || "no key" })),
    make("p", { textContent: spec.description || "" }),
    table(["Parameter", "In", "Type", ""], parameters),
    body ? make("p", {}, "Body: ", code(typeOf(body))) : null,
    ...answers(spec.responses));
}

function show(doc) {
  const page = document.querySelector("main");
  page.replaceChildren(make("h1", { textContent: doc.info.title + " " + doc.info.version }),
    make("p", { textContent: doc.info.description || "" }),
    make("p", {}, "Send ", code("Authorization: Bearer <key>"), " wherever a scope is named."));
  for (const tag of doc.tags || []) {
    const found = Object.entries(doc.paths).flatMap(([path, item]) => METHODS
      .filter((method) => item[method] && item[method].tags.includes(tag.name))
      .map((method) => operation(path, method, item[method])));
    if (found.length) page.append(make("h2", { textContent: tag.name }), make("p", { textContent: tag.description }), ...found);
  }
  page.append(make("h2", { textContent: "Objects" }));
  for (const [name, schema] of Object.entries(doc.components.schemas)) {
    page.append(make("details", { id: name }, make("summary", {}, code(name)),
      make("p", { textContent: schema.description || "" }), fields(schema) || json(schema),
      schema.example ? json(schema.example) : null));
  }
}

fetch("__OPENAPI__").then((answer) => answer.json()).then(show).catch((error) => {
  document.querySelector("main").textContent = "openapi.json cannot be read: " + error;
});
