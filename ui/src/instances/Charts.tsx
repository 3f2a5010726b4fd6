// SPDX-License-Identifier: Apache-2.0
import { lazy, Suspense } from "react";

import { Button } from "../design/Button";
import { Loaded, Skeleton } from "../design/Loading";
import { useUtilization, type Instance } from "./queries";

const Chart = lazy(async () => ({ default: (await import("../design/Chart")).Chart }));

/** How busy the instance was in the last hour. Novita is asked when the page opens. */
export function Charts({ instance }: { instance: Instance }) {
  const running = instance.status === "running";
  const query = useUtilization(instance.id, running);
  return (
    <section className="panel" aria-labelledby="use">
      <div className="row apart">
        <h2 id="use">GPU and CPU use, last hour</h2>
        {running && (
          <Button busy={query.isFetching} onClick={() => void query.refetch()}>
            Read again
          </Button>
        )}
      </div>
      {running ? (
        <Loaded query={query}>
          {(use) =>
            use.gpu.length + use.cpu.length === 0 ? (
              <p className="empty">Novita has no values yet; they come about a minute late.</p>
            ) : (
              <Suspense fallback={<Skeleton />}>
                <Chart
                  label="Use of the instance in percent"
                  unit="%"
                  most={100}
                  lines={[
                    { name: "GPU", points: points(use.gpu) },
                    { name: "GPU memory", points: points(use.gpuMemory) },
                    { name: "CPU", points: points(use.cpu) },
                  ]}
                />
              </Suspense>
            )
          }
        </Loaded>
      ) : (
        <p className="quiet">It is shown while the instance runs.</p>
      )}
    </section>
  );
}

function points(series: { at: string; percent: number }[]): [number, number][] {
  return series.map((one) => [Date.parse(one.at) / 1000, one.percent]);
}
