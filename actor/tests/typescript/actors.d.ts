// Written by Clinch from the actors of a program: to be written anew, not edited.
import type { Registry as RivetRegistry } from "rivetkit";

type EventOf<Arguments extends unknown[]> = { readonly _eventType?: Arguments; readonly _queueMessage?: Arguments };

export type Added = { item: Item, };

export type Counted = number;

/**
 * What is thrown together.
 */
export type Item = { name: string, price: number, 
/**
 * A picture, as bytes.
 */
picture: Uint8Array, tags: Array<string>, note: string | null, kind: Kind, };

export type Kind = "Plain" | { "Weighed": number } | { "Made": { by: string, } };

export type Moved = [number, number];

export type Page<T> = { items: Array<T>, next: number | null, };

/** The actors of the program, by name: `createClient<Registry>(..)`. */
export type Registry = RivetRegistry<{
  cart: {
    config: {
      actions: {
        /** Adds an item. Says how many there are. */
        add: (context$: unknown, item: Item, times?: number | null, new$?: boolean | null) => number;
        /**
         * The items,
         * page by page: never *\/ all.
         */
        listItems: (context$: unknown, after: number | null, at_most: number) => Page<Item>;
        clear: (context$: unknown) => void;
        "prices-of": (context$: unknown, ...names: Array<string>) => { [key in string]: [number, number] };
        byNumber: (context$: unknown, numbers: { [key in number]: Page<string> }) => Kind | null;
        anything: (context$: unknown, value: unknown) => unknown;
      };
      events: {
        added: EventOf<[Added]>;
        counted: EventOf<[Counted]>;
        "moved-by": EventOf<Moved>;
        cleared: EventOf<[]>;
      };
      queues: {};
    };
  };
  plain: any;
  quiet: {
    config: {
      actions: {};
      events: {};
      queues: {};
    };
  };
}>;
