/*
 * A program of a user, which uses all that allstop/metrics exports. It is compiled, never run.
 */
import { type LifecycleEvent, Manager } from "allstop";
import {
  Metrics,
  type MetricsInstrument,
  type MetricsMeter,
  type MetricsOptions,
  type MetricsResult,
} from "allstop/metrics";

const options: MetricsOptions = { prefix: "shop" };

// An option that is undefined takes its default, also under exactOptionalPropertyTypes.
export const withDefaults = [new Metrics(), new Metrics({}), new Metrics({ prefix: undefined })];

// @ts-expect-error An unknown option is a type error.
export const withUnknown = new Metrics({ suffix: "total" });

/** A meter that keeps what it is told; an instrument may return itself. */
class Meter implements MetricsMeter {
  readonly callbacks: ((result: MetricsResult) => void)[] = [];

  createObservableCounter(name: string, { description }: { description: string }): MetricsInstrument {
    console.log(name.toUpperCase(), description.toUpperCase());
    return { addCallback: (callback) => this.callbacks.push(callback) };
  }
  createObservableGauge(name: string): MetricsInstrument {
    return this.createObservableCounter(name, { description: "" });
  }
}

export async function main(): Promise<void> {
  const metrics = new Metrics(options);
  const observe: (event: LifecycleEvent) => void = metrics.observe;
  const manager = new Manager({ onEvent: observe });
  const meter = new Meter();
  metrics.record(meter);
  // @ts-expect-error A meter makes gauges, too.
  metrics.record({ createObservableCounter: meter.createObservableCounter });
  await manager.wait();
  const page: string = metrics.render();
  const type: string = metrics.contentType;
  console.log(page.length, type.toUpperCase());
  // @ts-expect-error It is always the same.
  metrics.contentType = "text/plain";
  const result: MetricsResult = {
    observe: (value, attributes) => console.log(value.toFixed(), attributes["task"]?.toUpperCase()),
  };
  for (const collect of meter.callbacks) collect(result);
}
