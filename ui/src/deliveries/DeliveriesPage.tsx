// SPDX-License-Identifier: Apache-2.0
import { getRouteApi } from "@tanstack/react-router";

import { useReadMore } from "../api/readMore";
import { Button } from "../design/Button";
import { SelectField } from "../design/Field";
import { Loaded } from "../design/Loading";
import { Page } from "../shell/Page";
import { DeliveryTable } from "./DeliveryTable";
import { useDeliveryPages } from "./queries";
import { deliverySearch } from "./search";

const route = getRouteApi("/deliveries");

export function DeliveriesPage() {
  const { status } = route.useSearch();
  const navigate = route.useNavigate();
  const query = useDeliveryPages(status);
  const { reading, readMore } = useReadMore(query, query.data?.pages ?? 0);
  return (
    <Page title="Deliveries">
      <div className="fields">
        <SelectField
          label="Status"
          data-filter=""
          value={status ?? ""}
          onChange={(event) =>
            void navigate({ search: deliverySearch({ status: event.currentTarget.value }), replace: true })
          }
        >
          <option value="">Any</option>
          <option value="pending">Pending</option>
          <option value="delivered">Delivered</option>
          <option value="dead">Dead, given up</option>
        </SelectField>
      </div>
      <Loaded query={query} lines={8}>
        {({ rows }) =>
          rows.length === 0 ? (
            <p className="panel empty">
              {status ? `No delivery is ${status}.` : "No message was sent to a webhook yet."}
            </p>
          ) : (
            <>
              <DeliveryTable deliveries={rows} />
              {query.hasNextPage && (
                <div className="row">
                  <Button busy={reading} onClick={readMore}>
                    Read more
                  </Button>
                  <span className="small">
                    The newest {rows.length.toLocaleString("en-US")} are here.
                  </span>
                </div>
              )}
            </>
          )
        }
      </Loaded>
    </Page>
  );
}
