// SPDX-License-Identifier: Apache-2.0
// A page for tests: the filter field, with a value that follows 400 ms after it was told.
import { useState } from "react";
import { createRoot } from "react-dom/client";

import { FilterField } from "../../src/design/Field";

const LATE = 400;

function Late() {
  const [value, setValue] = useState("");
  return (
    <>
      <FilterField
        placeholder="Late"
        value={value}
        change={(text) => setTimeout(() => setValue(text), LATE)}
      />
      <output>{value}</output>
      <button type="button" onClick={() => setValue("from elsewhere")}>
        Elsewhere
      </button>
    </>
  );
}

const root = document.getElementById("root");
if (root !== null) createRoot(root).render(<Late />);
