// SPDX-License-Identifier: Apache-2.0
import { getRouteApi, Link } from "@tanstack/react-router";

import { ApiError } from "../api/errors";
import { Status } from "../design/Badge";
import { perHour } from "../design/format";
import { Loaded } from "../design/Loading";
import { Notice, Problem } from "../design/Problem";
import { Distance, Moment } from "../design/Time";
import { Page } from "../shell/Page";
import { advice } from "./advice";
import { AsRequest } from "./AsRequest";
import { Charts } from "./Charts";
import { Connect } from "./Connect";
import { CostPanel } from "./CostPanel";
import { History } from "./History";
import { LimitsPanel } from "./LimitsPanel";
import { useInstance, type Instance } from "./queries";
import { Tags } from "./Tags";
import { Timeline } from "./Timeline";
import { Verbs } from "./Verbs";

const route = getRouteApi("/instances/$instanceId");

export function InstancePage() {
  const { instanceId } = route.useParams();
  const query = useInstance(instanceId);
  const missing = query.error instanceof ApiError && query.error.status === 404;
  if (missing && query.error) {
    return (
      <Page title="No such instance">
        <Problem error={query.error} title={`No instance has the ID ${instanceId}`} />
        <p>
          <Link to="/instances" search={{ ended: true }}>
            List the instances, ended ones too
          </Link>
        </p>
      </Page>
    );
  }
  return (
    <Page title={query.data?.name ?? "Instance"}>
      <Loaded query={query} lines={9}>
        {(instance) => <Whole instance={instance} />}
      </Loaded>
    </Page>
  );
}

function Whole({ instance }: { instance: Instance }) {
  return (
    <>
      <Troubles instance={instance} />
      <div className="row apart">
        <div className="row">
          <Status status={instance.status} word={instance.upstreamStatus} />
          {instance.operation && (
            <span className="quiet small">
              {instance.operation.kind}: {instance.operation.phase}
            </span>
          )}
          <span className="number">
            {instance.hourlyPrice === undefined
              ? "no price yet"
              : `${perHour(instance.hourlyPrice)} while it runs`}
          </span>
          {instance.stopsAt && (
            <span>
              stops <Distance at={instance.stopsAt} />
            </span>
          )}
        </div>
        <Verbs instance={instance} />
      </div>
      <div className="panels">
        <Connect instance={instance} />
        <LimitsPanel instance={instance} />
        <CostPanel instance={instance} />
        <Facts instance={instance} />
      </div>
      <Timeline instance={instance} />
      <Charts instance={instance} />
      <History instance={instance} />
      <AsRequest instance={instance} />
    </>
  );
}

function Troubles({ instance }: { instance: Instance }) {
  const { error } = instance;
  return (
    <>
      {error && (
        <Notice kind="bad" title={error.message}>
          <p>{advice(error.code)}</p>
          <p className="small">
            <code>{error.code}</code> · <Moment at={error.at} />
          </p>
        </Notice>
      )}
      {instance.unenforced && (
        <Notice kind="bad" title="A limit is due and has no effect">
          <p>
            The instance goes on costing. Stop or delete it here; if that is refused, use
            Novita&apos;s console.
          </p>
        </Notice>
      )}
      {instance.spotReclaimAt && (
        <Notice kind="warn" title="Novita reclaims this spot instance">
          <p>
            Save your work: <Distance at={instance.spotReclaimAt} />
          </p>
        </Notice>
      )}
    </>
  );
}

function Facts({ instance }: { instance: Instance }) {
  return (
    <section className="panel" aria-labelledby="facts">
      <h2 id="facts">Facts</h2>
      <dl className="facts">
        <dt>ID</dt>
        <dd className="mono">{instance.id}</dd>
        <dt>At Novita</dt>
        <dd className="mono">{instance.upstreamId ?? "not bought yet"}</dd>
        <dt>Product</dt>
        <dd>
          {instance.productName} × {instance.gpuNum}
          {instance.productId && <span className="quiet"> ({instance.productId})</span>}
        </dd>
        <dt>Region</dt>
        <dd>{instance.region}</dd>
        <dt>Billing</dt>
        <dd>{instance.billingMode === "spot" ? "spot" : "on demand"}</dd>
        <dt>Template</dt>
        <dd>{instance.templateId ?? "not known"}</dd>
        <dt>Disk</dt>
        <dd>{instance.rootfsSize === undefined ? "not known" : `${instance.rootfsSize} GB`}</dd>
        <dt>Created</dt>
        <dd>
          <Moment at={instance.createdAt} /> by {instance.createdBy?.name ?? "adoption"}
        </dd>
        {instance.readyAt && (
          <>
            <dt>Serves since</dt>
            <dd>
              <Moment at={instance.readyAt} />
            </dd>
          </>
        )}
        {instance.observedAt && (
          <>
            <dt>Seen at Novita</dt>
            <dd>
              <Moment at={instance.observedAt} />
            </dd>
          </>
        )}
        <dt>Tags</dt>
        <dd>
          <Tags instance={instance} />
        </dd>
      </dl>
    </section>
  );
}
