// SPDX-License-Identifier: Apache-2.0
import { Link } from "@tanstack/react-router";
import { useState } from "react";

import type { Schemas } from "../api/client";
import { Badge } from "../design/Badge";
import { FilterField } from "../design/Field";
import { perHour } from "../design/format";
import { Loaded } from "../design/Loading";
import { Table, type Column } from "../design/Table";
import { Page } from "../shell/Page";
import { useCatalogue } from "./queries";

type Product = Schemas["Product"];
type Template = Schemas["Template"];

const PRODUCTS: Column<Product>[] = [
  {
    id: "name",
    title: "Product",
    head: true,
    cell: (one) => (
      <>
        <Link to="/new" search={{ product: one.name }} className="clip" dir="auto">
          {one.name}
        </Link>
        <code className="small">{one.id}</code>
      </>
    ),
  },
  {
    id: "stock",
    title: "Stock",
    cell: (one) => (
      <Badge tone={one.available ? "good" : "idle"}>{one.available ? "in stock" : "sold out"}</Badge>
    ),
  },
  { id: "demand", title: "On demand", numeric: true, cell: (one) => price(one.onDemandPrice) },
  {
    id: "spot",
    title: "Spot",
    numeric: true,
    from: "medium",
    cell: (one) => price(one.spotPrice),
  },
  {
    id: "machine",
    title: "For each GPU",
    from: "wide",
    cell: (one) => `${one.cpuPerGpu} cores, ${one.memoryPerGpu} GB`,
  },
  { id: "regions", title: "Regions", from: "medium", cell: (one) => one.regions.join(", ") },
];

const TEMPLATES: Column<Template>[] = [
  {
    id: "name",
    title: "Template",
    head: true,
    cell: (one) => (
      <>
        <Link to="/new" search={{ template: one.id }} className="clip" dir="auto">
          {one.name}
        </Link>
        <code className="small">{one.id}</code>
      </>
    ),
  },
  {
    id: "image",
    title: "Image",
    from: "medium",
    cell: (one) => (
      <span className="clip mono" title={one.image}>
        {one.image}
      </span>
    ),
  },
  { id: "channel", title: "From", from: "wide", cell: (one) => one.channel },
  {
    id: "ports",
    title: "Ports",
    cell: (one) => one.ports.map((port) => `${port.port}/${port.type}`).join(", "),
  },
];

function price(amount: number | undefined): string {
  return amount === undefined ? "–" : `${perHour(amount)} per GPU`;
}

export function CataloguePage() {
  const { products, templates, regions } = useCatalogue();
  const [text, setText] = useState("");
  const has = (...words: string[]) =>
    words.some((one) => one.toLowerCase().includes(text.toLowerCase()));
  return (
    <Page title="Catalogue">
      <div className="fields">
        <FilterField placeholder="Product, template, region" value={text} change={setText} />
      </div>
      <section className="stack" aria-labelledby="products">
        <h2 id="products">Products, cheapest first</h2>
        <Loaded query={products} lines={6}>
          {(rows) => (
            <Rows
              label="Products"
              columns={PRODUCTS}
              rows={rows.filter((one) => has(one.name, one.id, ...one.regions))}
            />
          )}
        </Loaded>
      </section>
      <section className="stack" aria-labelledby="templates">
        <h2 id="templates">Templates</h2>
        <Loaded query={templates} lines={6}>
          {(rows) => (
            <Rows
              label="Templates"
              columns={TEMPLATES}
              rows={rows.filter((one) => has(one.name, one.id, one.image))}
            />
          )}
        </Loaded>
      </section>
      <section className="stack" aria-labelledby="regions">
        <h2 id="regions">Regions</h2>
        <Loaded query={regions}>
          {(rows) => (
            <p>{rows.map((one) => (one.default ? `${one.name} (first)` : one.name)).join(", ")}</p>
          )}
        </Loaded>
      </section>
    </Page>
  );
}

function Rows<R extends { id: string }>(props: {
  label: string;
  columns: Column<R>[];
  rows: R[];
}) {
  if (props.rows.length === 0) return <p className="panel empty">None matches.</p>;
  return <Table {...props} rowKey={(one) => one.id} />;
}
