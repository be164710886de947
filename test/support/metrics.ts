import type { Metrics, MetricsMeter, MetricsResult } from "allstop/metrics";
import { parsePrometheus } from "./prometheus.ts";

/** The values of a family, each by the values of its labels, as in `consumer returned`. */
export function values(metrics: Metrics, family: string): Record<string, number> {
  const samples = parsePrometheus(metrics.render()).get(`allstop_${family}`)?.samples;
  if (!samples) throw new Error(`There is no ${family}`);
  return Object.fromEntries(samples.map(({ labels, value }) => [Object.values(labels).join(" "), value]));
}

/** What a meter was told of a series: its kind, its name, its attributes and its value. */
export type Told = [kind: "counter" | "gauge", name: string, attributes: Record<string, string>, value: number];

/** A meter that collects when it is asked to. */
export class Meter implements MetricsMeter {
  readonly descriptions = new Map<string, string>();
  readonly #collectors = new Map<string, () => Told[]>();

  createObservableCounter(name: string, options: { description: string }): ReturnType<Meter["instrument"]> {
    return this.instrument("counter", name, options);
  }

  createObservableGauge(name: string, options: { description: string }): ReturnType<Meter["instrument"]> {
    return this.instrument("gauge", name, options);
  }

  instrument(
    kind: "counter" | "gauge",
    name: string,
    { description }: { description: string },
  ): { addCallback(callback: (result: MetricsResult) => void): void } {
    this.descriptions.set(name, description);
    return {
      addCallback: (callback) => {
        this.#collectors.set(name, () => {
          const told: Told[] = [];
          callback({ observe: (value, attributes) => void told.push([kind, name, attributes, value]) });
          return told;
        });
      },
    };
  }

  /** What all instruments tell now, or one of them. */
  collect(name?: string): Told[] {
    const names = name === undefined ? [...this.#collectors.keys()] : [name];
    return names.flatMap((each) => this.#collectors.get(each)?.() ?? []);
  }
}

/** What a meter is to be told: what is on the page. */
export function onPage(metrics: Metrics): Told[] {
  return [...parsePrometheus(metrics.render())].flatMap(([name, { type, samples }]) =>
    samples.map(({ labels, value }): Told => [type as "counter" | "gauge", name, labels, value]),
  );
}
