/**
 * `@optique` makes an `Intl.Segmenter` when it is loaded, to measure lines of help that few runs print. That
 * reads some 20 ms of Unicode data, at the start of every `send`. Imported before it, this makes segmenters
 * that read the data when they are used.
 *
 * @module
 */

const { Segmenter } = Intl;

/** As `Intl.Segmenter`, for those who only segment. */
class LazySegmenter {
  readonly #made: () => Intl.Segmenter;

  constructor(...args: ConstructorParameters<typeof Segmenter>) {
    let segmenter: Intl.Segmenter | undefined;
    this.#made = () => segmenter ??= new Segmenter(...args);
  }

  segment(input: string): Intl.Segments {
    return this.#made().segment(input);
  }

  resolvedOptions(): Intl.ResolvedSegmenterOptions {
    return this.#made().resolvedOptions();
  }
}

Object.assign(Intl, { Segmenter: LazySegmenter });
