// SPDX-License-Identifier: Apache-2.0
import {
  createRootRoute,
  createRoute,
  createRouter,
  lazyRouteComponent,
} from "@tanstack/react-router";

import { costSearch } from "./costs/search";
import { draftSearch } from "./create/draft";
import { eventSearch } from "./events/search";
import { deliverySearch } from "./deliveries/search";
import { instanceSearch } from "./instances/filters";
import { Skeleton } from "./design/Loading";
import { Broken } from "./shell/Broken";
import { Lost } from "./shell/Lost";
import { Gate } from "./shell/Gate";

const root = createRootRoute({ component: Gate, notFoundComponent: Lost });

const overview = createRoute({
  getParentRoute: () => root,
  path: "/",
  component: lazyRouteComponent(() => import("./overview/OverviewPage"), "OverviewPage"),
});
const instances = createRoute({
  getParentRoute: () => root,
  path: "/instances",
  validateSearch: instanceSearch,
  component: lazyRouteComponent(() => import("./instances/InstancesPage"), "InstancesPage"),
});
const instance = createRoute({
  getParentRoute: () => root,
  path: "/instances/$instanceId",
  component: lazyRouteComponent(() => import("./instances/InstancePage"), "InstancePage"),
});
const create = createRoute({
  getParentRoute: () => root,
  path: "/new",
  validateSearch: draftSearch,
  component: lazyRouteComponent(() => import("./create/NewPage"), "NewPage"),
});
const costs = createRoute({
  getParentRoute: () => root,
  path: "/costs",
  validateSearch: costSearch,
  component: lazyRouteComponent(() => import("./costs/CostsPage"), "CostsPage"),
});
const events = createRoute({
  getParentRoute: () => root,
  path: "/events",
  validateSearch: eventSearch,
  component: lazyRouteComponent(() => import("./events/EventsPage"), "EventsPage"),
});
const budgets = createRoute({
  getParentRoute: () => root,
  path: "/budgets",
  component: lazyRouteComponent(() => import("./budgets/BudgetsPage"), "BudgetsPage"),
});
const keys = createRoute({
  getParentRoute: () => root,
  path: "/keys",
  component: lazyRouteComponent(() => import("./keys/KeysPage"), "KeysPage"),
});
const webhooks = createRoute({
  getParentRoute: () => root,
  path: "/webhooks",
  component: lazyRouteComponent(() => import("./webhooks/WebhooksPage"), "WebhooksPage"),
});
const deliveries = createRoute({
  getParentRoute: () => root,
  path: "/deliveries",
  validateSearch: deliverySearch,
  component: lazyRouteComponent(() => import("./deliveries/DeliveriesPage"), "DeliveriesPage"),
});
const unmanaged = createRoute({
  getParentRoute: () => root,
  path: "/unmanaged",
  component: lazyRouteComponent(() => import("./unmanaged/UnmanagedPage"), "UnmanagedPage"),
});
const catalogue = createRoute({
  getParentRoute: () => root,
  path: "/catalogue",
  component: lazyRouteComponent(() => import("./catalogue/CataloguePage"), "CataloguePage"),
});
const system = createRoute({
  getParentRoute: () => root,
  path: "/system",
  component: lazyRouteComponent(() => import("./system/SystemPage"), "SystemPage"),
});

export const router = createRouter({
  routeTree: root.addChildren([
    overview,
    instances,
    instance,
    create,
    costs,
    events,
    budgets,
    keys,
    webhooks,
    deliveries,
    unmanaged,
    catalogue,
    system,
  ]),
  defaultPreload: false,
  defaultErrorComponent: Broken,
  defaultPendingComponent: Skeleton,
  defaultPendingMs: 150,
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
