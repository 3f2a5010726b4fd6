// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState } from "react";

const TRIES = 5;

interface Query {
  isFetching: boolean;
  hasNextPage: boolean;
  fetchNextPage: () => Promise<{ isError: boolean }>;
}

/**
 * Read the next page when asked. An event of the stream reads a list again and ends a reading that
 * goes on, so the next page is read after that.
 */
export function useReadMore({ isFetching, hasNextPage, fetchNextPage }: Query, pages: number) {
  const [asked, setAsked] = useState({ pages: 0, tries: 0 });
  const reading = pages <= asked.pages && asked.tries > 0 && hasNextPage;
  useEffect(() => {
    if (!reading || isFetching) return;
    void fetchNextPage().then(({ isError }) =>
      setAsked((one) => ({ ...one, tries: isError ? 0 : one.tries - 1 })),
    );
  }, [reading, isFetching, fetchNextPage]);
  return { reading, readMore: () => setAsked({ pages, tries: TRIES }) };
}
