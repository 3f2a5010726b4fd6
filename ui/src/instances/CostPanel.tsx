// SPDX-License-Identifier: Apache-2.0
import { money } from "../design/format";
import { Loaded } from "../design/Loading";
import { Moment } from "../design/Time";
import { useInstanceCost, type Instance } from "./queries";

export function CostPanel({ instance }: { instance: Instance }) {
  const query = useInstanceCost(instance.id);
  return (
    <section className="panel" aria-labelledby="cost">
      <h2 id="cost">Cost</h2>
      <Loaded query={query}>
        {(cost) => (
          <>
            <dl className="facts number">
              <dt>GPUs</dt>
              <dd>{between(cost.gpu.accrued, cost.gpu.accruedAtMost)}</dd>
              <dt>Disk</dt>
              <dd>{between(cost.storage.accrued, cost.storage.accruedAtMost)}</dd>
              <dt>Together</dt>
              <dd>
                <strong>
                  {cost.accrued === undefined
                    ? "unknown"
                    : between(cost.accrued, cost.accruedAtMost ?? cost.accrued)}
                </strong>
              </dd>
            </dl>
            <p className="small quiet">
              USD since {cost.costSince ? <Moment at={cost.costSince} /> : "its creation"}, as of{" "}
              <Moment at={cost.asOf} />.
              {cost.unknown && " Novita does not tell a price, so a part is not known."}
            </p>
          </>
        )}
      </Loaded>
    </section>
  );
}

/** Certainly billed, and at most; one amount if both look the same. */
export function between(least: number, most: number): string {
  const [low, high] = [money(least), money(most)];
  return low === high ? low : `${low} to ${high}`;
}
