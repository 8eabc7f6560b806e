/**
 * The profiles by name.
 *
 * @module
 */

import { paperProfile } from "./paper_profile.ts";
import { type Profile, type ProfileId, sealedProfile } from "./profile.ts";

/** See {@linkcode Profile}. */
export const profiles: Readonly<Record<ProfileId, Profile>> = {
  sealed: sealedProfile,
  paper: paperProfile,
};
