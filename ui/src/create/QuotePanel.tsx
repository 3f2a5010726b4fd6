// SPDX-License-Identifier: Apache-2.0
import type { UseQueryResult } from "@tanstack/react-query";

import type { Schemas } from "../api/client";
import { useBudgets } from "../budgets/queries";
import { Button } from "../design/Button";
import { minutes, money, perHour, plural, span } from "../design/format";
import { Loaded } from "../design/Loading";
import { Notice } from "../design/Problem";
import { Table, type Column } from "../design/Table";

type Candidate = Schemas["QuoteCandidate"];

const COLUMNS: Column<Candidate & { rank: number }>[] = [
  { id: "rank", title: "Tried", numeric: true, cell: (one) => `${one.rank}.` },
  { id: "region", title: "Region", head: true, cell: (one) => one.region },
  { id: "product", title: "Offer", from: "medium", cell: (one) => one.productId },
  { id: "price", title: "Price", numeric: true, cell: (one) => perHour(one.hourlyPrice) },
  {
    id: "disk",
    title: "Disk",
    numeric: true,
    from: "widest",
    cell: (one) => `${money(one.storagePerDay)}/day`,
  },
  {
    id: "ready",
    title: "Ready in",
    numeric: true,
    from: "wide",
    cell: (one) => span(one.estimatedReadySeconds * 1000),
  },
];

/** What a create would buy now. Nothing is bought or reserved by looking. */
export function QuotePanel({
  quote,
  ready,
}: {
  quote: UseQueryResult<Schemas["Quote"]>;
  ready: boolean;
}) {
  return (
    <section className="panel" aria-labelledby="quote" aria-busy={quote.isFetching}>
      <div className="row apart">
        <h2 id="quote">Quote</h2>
        {ready && (
          <Button busy={quote.isFetching} onClick={() => void quote.refetch()}>
            Ask again
          </Button>
        )}
      </div>
      {ready ? (
        <Loaded query={quote}>{(answer) => <Answer quote={answer} />}</Loaded>
      ) : (
        <p className="quiet">Choose a product and a template to see what it costs.</p>
      )}
    </section>
  );
}

function Answer({ quote }: { quote: Schemas["Quote"] }) {
  const budgets = useBudgets();
  const best = quote.candidates[0];
  const name = (id: string) => budgets.data?.rows.find((one) => one.id === id)?.name ?? id;
  return (
    <>
      {best ? (
        <p>
          <strong className="number">{perHour(best.hourlyPrice)}</strong>, {money(best.hourlyPrice * 24)}{" "}
          a day, in {best.region}. If it is sold out, the next offer is tried.
        </p>
      ) : (
        <Notice kind="bad" title="No offer fits now">
          <p>See the reasons below. Relax the region, the price limit or the size, or try later.</p>
        </Notice>
      )}
      {quote.budgets.map((one) => (
        <p key={one.id} className={one.allows ? "" : "field-error"} dir="auto">
          Budget {name(one.id)}: {money(one.remaining)} left
          {!one.allows && ", too little for the first hour, so the create is refused"}
        </p>
      ))}
      {(quote.keyLimits ?? []).map((one) => (
        <p key={one.limit} className={one.allows ? "" : "field-error"}>
          {one.limit === "maxRunMinutes"
            ? `Limit of the key: ${minutes(one.allowed)} for each run`
            : `Limit of the key: ${plural(one.allowed, "instance")}, this would be number ${one.wanted}`}
          {!one.allows && ", so the create is refused"}
        </p>
      ))}
      {quote.candidates.length > 0 && (
        <Table
          label="Offers in the order in which they are tried"
          columns={COLUMNS}
          rows={quote.candidates.map((one, index) => ({ ...one, rank: index + 1 }))}
          rowKey={(one) => `${one.productId} ${one.region}`}
        />
      )}
      {quote.refused.length > 0 && (
        <details open={best === undefined}>
          <summary>{plural(quote.refused.length, "offer")} ruled out</summary>
          <ul className="plain stack small">
            {quote.refused.map((one) => (
              <li key={`${one.productId} ${one.region} ${one.reason}`} dir="auto">
                {one.productId}, {one.region}: {one.message} <code>{one.reason}</code>
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  );
}
