// SPDX-License-Identifier: Apache-2.0
// Shows the OpenAPI document in the page with Swagger UI. The page has no connection to the server,
// so requests cannot be tried out.
"use strict";
SwaggerUIBundle({
  spec: JSON.parse(document.getElementById("document").textContent),
  domNode: document.getElementById("api"),
  supportedSubmitMethods: [],
  validatorUrl: null,
  filter: true,
  defaultModelsExpandDepth: 0,
});
