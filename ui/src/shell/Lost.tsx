// SPDX-License-Identifier: Apache-2.0
import { Link } from "@tanstack/react-router";

import { Page } from "./Page";

export function Lost() {
  return (
    <Page title="No such page">
      <p>
        Nothing is at this address. <Link to="/instances" search={{}}>See the instances</Link>, or
        press <kbd>Ctrl</kbd>-<kbd>K</kbd> to go anywhere.
      </p>
    </Page>
  );
}
