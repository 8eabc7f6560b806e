/**
 * Checks of decoded JSON against what a message must be. Every check returns a fresh value of exactly
 * the type it promises, or throws {@linkcode SchemaError}.
 *
 * @module
 */

/** Why a value is not what it must be. `message` names the place and the rule, never the value. */
export class SchemaError extends Error {
  /** The class's name. */
  override readonly name = "SchemaError";
}

/** Turns an unknown value into a `T`; `path` names it in the error. */
export type Check<T> = (value: unknown, path: string) => T;

/** An object with exactly these fields: a missing or an unknown one is refused. */
export function object<T extends object>(fields: { [K in keyof T]-?: Check<T[K]> }): Check<T> {
  const names = Object.keys(fields) as (keyof T & string)[];
  return (value, path) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new SchemaError(`${path} is not an object`);
    }
    const given = new Map<string, unknown>(Object.entries(value));
    const result: Partial<T> = {};
    for (const name of names) {
      if (!given.has(name)) throw new SchemaError(`${path}.${name} is missing`);
      result[name] = fields[name](given.get(name), `${path}.${name}`);
      given.delete(name);
    }
    if (given.size > 0) throw new SchemaError(`${path} has an unknown field`);
    return result as T;
  };
}

/** A list of at most `max` items. */
export function list<T>(item: Check<T>, max: number): Check<T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw new SchemaError(`${path} is not a list`);
    if (value.length > max) throw new SchemaError(`${path} has more than ${max} items`);
    return value.map((one: unknown, index) => item(one, `${path}[${index}]`));
  };
}

/** A list as above in which `key` of every item is above that of the one before. */
export function ascending<T>(items: Check<T[]>, key: (item: T) => number): Check<T[]> {
  return (value, path) => {
    let last = -Infinity;
    const checked = items(value, path);
    for (const item of checked) {
      if (key(item) <= last) throw new SchemaError(`${path} is not in ascending order`);
      last = key(item);
    }
    return checked;
  };
}

/** A string that passes `accepts`; `rule` completes the sentence "<path> is not ...". */
export function string(rule: string, accepts: (text: string) => boolean): Check<string> {
  return (value, path) => {
    if (typeof value !== "string" || !accepts(value)) {
      throw new SchemaError(`${path} is not ${rule}`);
    }
    return value;
  };
}

/** An integer from `min` to `max`; `max` must be a safe integer. */
export function integer(min: number, max: number): Check<number> {
  return (value, path) => {
    if (typeof value !== "number" || !Number.isInteger(value) || value < min || value > max) {
      throw new SchemaError(`${path} is not an integer from ${min} to ${max}`);
    }
    return value;
  };
}

/** `true` or `false`. */
export function boolean(value: unknown, path: string): boolean {
  if (typeof value !== "boolean") throw new SchemaError(`${path} is not a boolean`);
  return value;
}

/** One of the names in `names`. */
export function oneOf<const T extends readonly string[]>(names: T): Check<T[number]> {
  return (value, path) => {
    const found = names.find((name) => name === value);
    if (found === undefined) throw new SchemaError(`${path} is none of ${names.join(", ")}`);
    return found;
  };
}

/** `null`, or what `check` accepts. */
export function nullable<T>(check: Check<T>): Check<T | null> {
  return (value, path) => value === null ? null : check(value, path);
}
