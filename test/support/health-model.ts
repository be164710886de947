import type { HealthStatus } from "allstop/health";
import { STATUSES } from "./health.ts";

interface Part {
  reported: HealthStatus;
  detail?: string | undefined;
  readonly critical: boolean;
  readonly on: Set<string>;
}

/** What `Health` must be, said once more: what was told last of each component, in order of registration. */
export class HealthModel {
  readonly parts = new Map<string, Part>();
  /** How many changes there were. */
  changes = 0;

  /** As `brief()` has it of a snapshot. */
  get brief(): string {
    const ranks = [...this.parts.values()].map((part) => {
      const rank = STATUSES.indexOf(this.#status(part));
      return part.critical ? rank : Math.min(rank, 1);
    });
    return `${STATUSES[Math.max(0, ...ranks)]}: ${[...this.#lines().values()].join(", ")}`;
  }

  change(act: () => void): void {
    const before = this.#lines();
    act();
    const after = this.#lines();
    const names = new Set([...before.keys(), ...after.keys()]);
    this.changes += [...names].filter((name) => before.get(name) !== after.get(name)).length;
  }

  #status({ reported, on }: Part): HealthStatus {
    const isHeld = [...on].some((name) => this.parts.get(name)?.reported === "unhealthy");
    return isHeld && reported === "healthy" ? "degraded" : reported;
  }

  #lines(): Map<string, string> {
    return new Map(
      [...this.parts].map(([name, part]) => {
        const detail = part.detail === undefined ? "" : ` (${part.detail})`;
        return [name, `${name} ${this.#status(part)}${detail}`];
      }),
    );
  }
}
