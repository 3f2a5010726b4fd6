// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import "./chart.css";
import { atClock, atDate } from "./format";

export interface Line {
  name: string;
  /** Seconds since 1970, and the value. */
  points: [number, number][];
}

interface Props {
  label: string;
  unit: string;
  most?: number;
  bars?: boolean;
  lines: Line[];
}

const COLOURS = ["--good", "--busy", "--warn", "--bad"];
const HEIGHT = 200;

/** Lines or bars over time. The last values are below as text, for those who do not see it. */
export function Chart({ label, unit, most, bars = false, lines }: Props) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const box = place.current;
    if (box === null) return;
    let plot: uPlot | null = null;
    const draw = () => {
      plot?.destroy();
      plot = new uPlot(options(box, lines, unit, most, bars), aligned(lines), box);
    };
    draw();
    const resized = new ResizeObserver(() =>
      plot?.setSize({ width: Math.max(200, box.clientWidth), height: HEIGHT }),
    );
    resized.observe(box);
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", draw);
    return () => {
      dark.removeEventListener("change", draw);
      resized.disconnect();
      plot?.destroy();
    };
  }, [lines, unit, most, bars]);
  return (
    <figure>
      <div ref={place} className="chart" role="img" aria-label={label} />
      <figcaption className="small row">
        {lines.map((line, index) => (
          <span key={line.name}>
            <span className={`chart-key c${index}`} aria-hidden="true" /> {line.name}:{" "}
            {line.points.length === 0 ? "no values" : `${line.points.at(-1)?.[1].toLocaleString("en-US", { maximumFractionDigits: 4 })} ${unit}`}
          </span>
        ))}
      </figcaption>
    </figure>
  );
}

function options(
  box: HTMLElement,
  lines: Line[],
  unit: string,
  most: number | undefined,
  bars: boolean,
): uPlot.Options {
  const style = getComputedStyle(box);
  // The canvas does not know light-dark(); the browser computes colours of elements.
  const colour = (name: string) => {
    box.style.color = `var(${name})`;
    const computed = style.color;
    box.style.color = "";
    return computed;
  };
  const axis = {
    stroke: colour("--quiet"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 },
  };
  return {
    width: Math.max(200, box.clientWidth),
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_plot, _low, high) => [0, most ?? (high > 0 ? high * 1.1 : 1)] } },
    axes: [{ ...axis, values: (_plot, values) => values.map((one) => dated(one, values)) }, { ...axis, size: 64, values: (_plot, values) => values.map((one) => `${one} ${unit}`) }],
    series: [
      {},
      ...lines.map((line, index) => ({
        label: line.name,
        stroke: colour(COLOURS[index % COLOURS.length] ?? "--good"),
        width: 2,
        points: { show: false },
        ...(bars &&
          uPlot.paths.bars && {
            paths: uPlot.paths.bars({ size: [0.7, 60] }),
            fill: colour(COLOURS[index % COLOURS.length] ?? "--good"),
          }),
      })),
    ],
  };
}

/** A mark of the time axis: a day, or a time of one if the marks are less than a day apart. */
function dated(at: number, all: number[]): string {
  const [first = 0, second = first] = all;
  return second - first < 86_400 ? atClock(at * 1000) : atDate(at * 1000);
}

function aligned(lines: Line[]): uPlot.AlignedData {
  const times = [...new Set(lines.flatMap((line) => line.points.map(([at]) => at)))].sort(
    (a, b) => a - b,
  );
  const values = lines.map((line) => {
    const known = new Map(line.points);
    return times.map((at) => known.get(at) ?? null);
  });
  return [times, ...values];
}
