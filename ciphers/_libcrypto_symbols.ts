/**
 * What Sealift uses of libcrypto: symbols and numbers of openssl/evp.h, openssl/crypto.h, openssl/err.h.
 *
 * @see {@link https://docs.openssl.org/3.0/man3/EVP_EncryptInit/ EVP_EncryptInit(3)}
 * @module
 */

/** The symbol table. */
export const libcryptoSymbols = {
  OpenSSL_version: { parameters: [/* t */ "i32"], result: "pointer" },
  ERR_get_error: { parameters: [], result: "u64" },
  ERR_error_string_n: {
    parameters: [/* e */ "u64", /* buf */ "buffer", /* len */ "usize"],
    result: "void",
  },
  EVP_CIPHER_fetch: {
    parameters: [/* libctx */ "pointer", /* algorithm */ "buffer", /* properties */ "buffer"],
    result: "pointer",
  },
  EVP_CIPHER_CTX_new: { parameters: [], result: "pointer" },
  EVP_CIPHER_CTX_free: { parameters: [/* ctx */ "pointer"], result: "void" },
  EVP_CIPHER_CTX_ctrl: {
    parameters: [/* ctx */ "pointer", /* type */ "i32", /* arg */ "i32", /* ptr */ "buffer"],
    result: "i32",
  },
  EVP_CipherInit_ex: {
    parameters: [
      /* ctx */ "pointer",
      /* type */ "pointer",
      /* impl */ "pointer",
      /* key */ "buffer",
      /* iv */ "buffer",
      /* enc */ "i32",
    ],
    result: "i32",
  },
  EVP_CipherUpdate: {
    parameters: [
      /* ctx */ "pointer",
      /* out */ "buffer",
      /* outl */ "buffer",
      /* in */ "buffer",
      /* inl */ "i32",
    ],
    result: "i32",
  },
  EVP_CipherFinal_ex: {
    parameters: [/* ctx */ "pointer", /* outm */ "buffer", /* outl */ "buffer"],
    result: "i32",
  },
  EVP_Q_digest: {
    parameters: [
      /* libctx */ "pointer",
      /* name */ "buffer",
      /* propq */ "buffer",
      /* data */ "buffer",
      /* datalen */ "usize",
      /* md */ "buffer",
      /* mdlen */ "buffer",
    ],
    result: "i32",
  },
  EVP_Q_mac: {
    parameters: [
      /* libctx */ "pointer",
      /* name */ "buffer",
      /* propq */ "buffer",
      /* subalg */ "buffer",
      /* params */ "pointer",
      /* key */ "buffer",
      /* keylen */ "usize",
      /* data */ "buffer",
      /* datalen */ "usize",
      /* out */ "buffer",
      /* outsize */ "usize",
      /* outlen */ "buffer",
    ],
    result: "pointer",
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** The opened library's functions. */
export type LibcryptoSymbols = Deno.DynamicLibrary<typeof libcryptoSymbols>["symbols"];

/** OPENSSL_FULL_VERSION_STRING of openssl/crypto.h: for instance `3.0.17`. */
export const OPENSSL_FULL_VERSION_STRING = 7;
/** `EVP_CIPHER_CTX_ctrl`: the nonce's length. */
export const EVP_CTRL_AEAD_SET_IVLEN = 0x9;
/** `EVP_CIPHER_CTX_ctrl`: writes the tag, after the end of a sealed message. */
export const EVP_CTRL_AEAD_GET_TAG = 0x10;
/** `EVP_CIPHER_CTX_ctrl`: the tag to expect, before the end of a message to open. */
export const EVP_CTRL_AEAD_SET_TAG = 0x11;
