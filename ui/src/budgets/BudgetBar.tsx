// SPDX-License-Identifier: Apache-2.0
import type { Schemas } from "../api/client";
import { money } from "../design/format";
import "./budgets.css";

const PERIODS = { day: "a day", week: "a week", month: "a month", total: "in all" } as const;

/** How much of a budget is spent and reserved, as text and as a bar. */
export function BudgetBar({ budget }: { budget: Schemas["Budget"] }) {
  const used = budget.spent + budget.reserved;
  return (
    <div className="budget">
      <div className="row apart">
        <strong dir="auto">{budget.name}</strong>
        <span className="number small">
          {money(budget.spent)} spent, {money(budget.reserved)} reserved of {money(budget.amount)}{" "}
          {PERIODS[budget.period]}
        </span>
      </div>
      <meter
        className={used >= budget.amount ? "full" : undefined}
        aria-label={`Used of the budget ${budget.name}`}
        min={0}
        max={budget.amount}
        value={Math.min(used, budget.amount)}
      />
    </div>
  );
}
