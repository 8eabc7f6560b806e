/*
 * Sealift: model of the switchover (PROTOCOL.md section 7) and of as much of
 * JOIN and RECOVER (sections 6 and 7) as it needs.
 *
 *   run:   deno task model
 *   trace: spin -a -DNO_OURS switchover.pml && gcc -DSAFETY -DNOCLAIM -DNOREDUCE -DBFS -o pan pan.c && \
 *          ./pan && spin -t -p -g switchover.pml
 *
 * Safety search: assertions (never two running, no stale copy, exactly one runs
 * after the operator has settled). Liveness search: settling always ends.
 * Each rule of section 7 that the search asked for has a switch that takes it
 * away again and shows why it is there; with any of them the safety search
 * finds an error:
 *   NO_KNOWN     --declare-dead needs only the fence, not the statement "it never ran"
 *   NO_OURS      any postmigrate counts as this migration's postmigrate
 *   NO_JOURNAL   recover sends RELEASE without journalling `released` first
 *   NO_HOLD      --max-stop also fires when the source's QEMU is gone
 *   NO_COMPLETED recover discards a QEMU that is loaded but not journalled so
 *   NO_TAKEGONE  `taking` + destination QEMU gone counts as "never ran"
 *   NO_REFUSED   the destination refuses after `taking` as well, whatever it saw
 *   NO_EARLY     `released` is written before SHUT(0)
 *   NO_ORDER     ABORT goes out before the source has resumed
 *   NO_RESUMEEV  "source QEMU gone" counts as released even after a RESUME
 *   NO_EOFWAIT   --reconnect also discards a destination that is loading
 *   NO_AGAIN     after JOIN only RELEASE is said again
 *   NO_STUCK     a destination whose `cont` fails discards at once, without being told
 *   NO_LOOK      a destination whose `cont` fails discards when told, without looking whether it runs by now
 *   NO_BACK      recover does not look whether its own journal gave the VM back to the source
 *   NO_FIRST     recover says `cont` before it has journalled `aborted`
 * CRASHES (default 4) bounds crashes of agents and of QEMUs, lost hosts,
 * journal lines that cannot be written, and commands that fail.
 *
 * One process, one atomic step per transition, grouped by actor. Starts when
 * the source's QEMU has stopped and END is being read (step 1). The agent (or
 * recover) of a host is alone there: it holds the lock on QEMU.
 *
 * Comments that tests/model/transitions_test.ts reads, and compares with the
 * tables in migration/states.ts:
 *   source: a, b -> c    steps of the source's machine that an option takes
 *   source: a ends       its process ends in a last state of the machine
 *   recover, crash       no machine takes this one
 *   source: a            (beside a state) what the machine calls it
 */
#ifndef CRASHES
#define CRASHES 4
#endif

/* QEMU, either side */
#define FM    0   /* source: finish-migrate.  destination: inmigrate */
#define PAUSE 1   /* source: postmigrate.     destination: loaded, paused */
#define RUN   2
#define GONE  3
byte sq = FM;
byte dq = FM;

/* source agent (send, or recover from S_REC on) */
#define DEAD   0   /* ended: crashed, or the outcome is unknown */
#define S_SEND 1   /* source: stopping */
#define S_FIN  2   /* source: finishing */
#define S_RLSG 3   /* source: releasing */
#define S_SHUT 4   /* source: releasing */
#define S_RLSD 5   /* source: released */
#define S_BACK 6   /* source: discarding */
#define S_CONT 7   /* source: returning */
#define S_ABRT 8   /* source: aborting */
#define S_SAID 9   /* source: aborting */
#define S_QUIT 10  /* source: done */
#define S_DONE 11  /* ended: outcome known */
#define S_REC  12  /* recover: does not know the destination */
#define S_REC2 13  /* recover: knows it, sSaw; stays here when nobody can know */
#define S_WIPE 14  /* recover: VM is at the source; DISCARD sent */
byte sa = S_SEND;
bit  sRec;         /* this process is recover: no join key */
bit  sRead;        /* QEMU's stream was read to its end */
bit  sLded;        /* LOADED was heard */

/* destination agent (receive, or recover) */
#define D_RECV 1   /* destination: receiving */
#define D_LOAD 2   /* destination: loading */
#define D_LDED 3   /* destination: loaded */
#define D_TAKE 4   /* destination: taking */
#define D_STCK 5   /* destination: stuck */
#define D_RUNS 6   /* destination: running */
#define D_REFU 7   /* destination: refusing */
#define D_QUIT 8   /* destination: discarding */
#define D_DISC 9   /* destination: discarded */
#define D_UNKN 10  /* recover: found taking and no QEMU */
#define D_RTAK 11  /* recover: found taking and QEMU; runs it when told */
byte da = D_RECV;
bit  dRec;

/* journals: survive */
#define NONE      0
#define RELEASING 1
#define RELEASED  2
#define DONE      3
byte sj = NONE;
bit  sBack;        /* `aborted` or `ran` after that: the VM was given back to the source */
#define LOADED    1
#define TAKING    2
#define RUNNING   3
#define DISCARDED 4
byte dj = NONE;

/* what recover at the source was told */
#define W_LOADED 1
#define W_NEVER  2   /* discarded, or never taking and not loaded, or QEMU gone */
#define W_TAKING 3
#define W_RUN    4
#define W_UNKN   5
byte sSaw;

bit sock = 1;      /* source QEMU's migration socket is open at our end */
bit shut;          /* SHUT(0) written, not yet read by QEMU */
bit up = 1;        /* agents connected */
bit mFINISH, mRELEASE, mDISCARD, mABORT;      /* source -> destination */
bit mLOADED, mRUNNING, mREFUSE, mDISCARDED;   /* back; mREFUSE is ABORT */
bit mSTUCK;                                   /* back: ABORT, code cannotRun */

bit sLost, dLost;  /* host lost or fenced: QEMU, agent and journal gone for good */
byte crashes;
bit settle, finished, alive0;

/* what really happened; no agent can read these */
bit sRan;          /* the source ran after its state was captured */
bit dRan;          /* the destination has run */
bit moved;         /* the source ran on and was migrated elsewhere later */

#define running  ((sq == RUN -> 1 : 0) + (dq == RUN -> 1 : 0) + moved)
#define sCurrent (sq != GONE && !dRan && !moved)
#define dCurrent ((dq == PAUSE || dq == RUN) && !sRan && !mDISCARD && !sBack)   /* with DISCARD under way, or given back, the source is the only copy */
#define sLive    (sa != DEAD && sa != S_DONE)
#define noMsgs   mFINISH = 0; mRELEASE = 0; mDISCARD = 0; mABORT = 0; mLOADED = 0; mRUNNING = 0; mREFUSE = 0; mDISCARDED = 0; mSTUCK = 0
#define anyMsg   (mFINISH || mRELEASE || mDISCARD || mABORT || mLOADED || mRUNNING || mREFUSE || mDISCARDED || mSTUCK)
#define toSrc0   mLOADED = 0; mRUNNING = 0; mREFUSE = 0; mDISCARDED = 0; mSTUCK = 0
#define toDst0   mFINISH = 0; mRELEASE = 0; mDISCARD = 0; mABORT = 0
#define crash    (crashes < CRASHES && !settle)
#define rec2     (sa == S_REC2 && sj != DONE)

#ifdef NO_BACK
#define back 0
#else
#define back sBack
#endif
/* "this migration made it postmigrate", and "dead, and it never ran" */
#ifdef NO_OURS
#define ours 1
#else
#define ours (!moved)
#endif
#ifdef NO_KNOWN
#define sNeverRan 1
#define dNeverRan 1
#else
#define sNeverRan (!sRan)
#define dNeverRan (!dRan)
#endif
#ifdef NO_HOLD
#define mayTime 1
#else
#define mayTime (sq != GONE || sRan || !sRead)
#endif
#ifdef NO_RESUMEEV
#define noResume 1
#else
#define noResume (!sRan)
#endif
#ifdef NO_LOOK
#define dLooked 1
#else
#define dLooked (!dRan)
#endif

inline sourceRuns() { sq = RUN; sRan = 1; assert(running <= 1) }
inline sourceCont() { assert(!dRan); assert(!moved); sourceRuns() }
inline destRuns()   { assert(!sRan); dq = RUN; dRan = 1; assert(running <= 1) }
inline sEnds(how)   { sa = how; up = 0; toSrc0; sSaw = 0; sRec = 0; sRead = 0; sLded = 0; sock = 0 }
inline dEnds()      { da = DEAD; up = 0; toDst0; dRec = 0 }
inline dDiscard()   { dq = GONE; da = D_QUIT }

/* on every new connection each side says again what its state wants said; a QEMU that died while the source
   waits for DISCARDED has been noticed by then (else: it died with DISCARD under way) */
inline sayAgain() {
  noMsgs; up = 1;
  mRELEASE = (sa == S_RLSD);
#ifndef NO_AGAIN
  mFINISH = (sa == S_FIN || sa == S_RLSG || sa == S_SHUT); mDISCARD = (sa == S_BACK && sq != GONE); mABORT = (sa == S_SAID);
  mLOADED = (da == D_LDED); mRUNNING = (da == D_RUNS);
  mREFUSE = (da == D_REFU); mDISCARDED = (da == D_DISC); mSTUCK = (da == D_STCK)
#endif
}

active proctype sealift() {
do
/* ---- source QEMU ---- */
:: atomic { sq == FM && shut -> shut = 0; sq = PAUSE }                    /* SHUT(0) read */
:: atomic { sq == FM && !sock -> shut = 0; sourceRuns() }                 /* socket closed first */
:: atomic { sq == FM && crash -> crashes++; shut = 0; sourceRuns() }      /* somebody's migrate_cancel */
:: atomic { sq != GONE && crash -> crashes++; sq = GONE; shut = 0 }

/* ---- source agent ---- */
:: atomic { sa == S_SEND && !sRead -> sRead = 1 }
:: atomic { sa == S_SEND && sRead ->                                      /* source: stopping -> finishing */
            sa = S_FIN; mFINISH = up }
   /* --max-stop, Ctrl-C, QEMU resumed, QEMU gone before its stream was read, `releasing` cannot be written */
:: atomic { (sa == S_SEND || sa == S_FIN || sa == S_RLSG) && mayTime ->   /* source: stopping, finishing, releasing -> aborting */
            sa = S_ABRT; sock = 0;
#ifdef NO_ORDER
            mABORT = up
#endif
          }
   /* the refusal is not forgotten: forward after all, it ends there */
:: atomic { (sa == S_SEND || sa == S_FIN || sa == S_RLSG) && mREFUSE && (sj != RELEASED || sa == S_RLSG) ->   /* source: stopping, finishing, releasing -> aborting */
            sa = S_ABRT; sock = 0 }
:: atomic { (sa == S_SEND || sa == S_FIN) && sq == GONE && sj == RELEASED && (mREFUSE || !up || !settle) ->   /* source: stopping, finishing -> unknown */
            sEnds(DEAD) }                                                 /* exit 5 */
:: atomic { sa == S_FIN && (mLOADED || sLded) && sj != RELEASED ->        /* source: finishing -> releasing */
            mLOADED = 0; sLded = 1; sa = S_RLSG;
#ifdef NO_EARLY
            sj = RELEASED
#else
            sj = RELEASING
#endif
          }
   /* gone, and it never resumed: it never will */
:: atomic { ((sa == S_SEND && sRead) || sa == S_FIN) && sq == GONE && noResume && sj != RELEASED -> sj = RELEASED }
:: atomic { sa == S_FIN && (mLOADED || sLded) && sq == GONE && sj == RELEASED ->   /* source: finishing -> released */
            mLOADED = 0; sa = S_RLSD; mRELEASE = up }
:: atomic { sa == S_RLSG -> shut = (sq == FM); sa = S_SHUT }
:: atomic { sa == S_SHUT && (sq == PAUSE || (sq == GONE && noResume)) ->  /* source: releasing -> released */
            sj = RELEASED; sa = S_RLSD; mRELEASE = up }
   /* `released` cannot be written */
:: atomic { sa == S_SHUT && sq == PAUSE && crash ->                       /* source: releasing -> discarding */
            crashes++; sa = S_BACK; mDISCARD = up }
   /* the same, QEMU being gone; or QEMU does not answer */
:: atomic { sa == S_SHUT && crash ->                                      /* source: releasing -> unknown */
            crashes++; sEnds(DEAD) }
:: atomic { sa == S_SHUT && (sq == RUN || (sq == GONE && !noResume)) ->   /* source: releasing -> aborting */
            sa = S_ABRT; sock = 0 }
:: atomic { sa == S_RLSD && mRUNNING ->                                   /* source: released -> done */
            mRUNNING = 0; sj = DONE; sa = S_QUIT }
   /* `done` cannot be written: nothing changes */
:: atomic { sa == S_RLSD && !sRec && mRUNNING && crash ->                 /* source: released -> done */
            crashes++; mRUNNING = 0; sa = S_QUIT }
:: atomic { sa == S_QUIT ->                                               /* source: done ends */
            sq = GONE; sEnds(S_DONE) }
   /* --keep-source */
:: atomic { sa == S_QUIT && !sRec ->                                      /* source: done ends */
            sEnds(S_DONE) }
:: atomic { sa == S_RLSD && !sRec && (mREFUSE || mSTUCK) && sq != GONE -> /* source: released -> discarding */
            mREFUSE = 0; mSTUCK = 0; sa = S_BACK; mDISCARD = up }
   /* both are dead */
:: atomic { sa == S_RLSD && !sRec && mREFUSE && sq == GONE ->             /* source: released -> failed */
            sEnds(S_DONE) }
   /* the only copy is over there; or QEMU was not seen in postmigrate */
:: atomic { sa == S_RLSD && !sRec && mSTUCK && (sq == GONE || !settle) -> mSTUCK = 0; mRELEASE = up }
:: atomic { sa == S_RLSD && !sRec && mREFUSE && sq != GONE && !settle -> mREFUSE = 0; mRELEASE = up }
   /* QEMU is gone; or it could run over there after all */
:: atomic { sa == S_BACK && !sRec && sj == RELEASED && (sq == GONE || mRUNNING) ->   /* source: discarding -> released */
            sa = S_RLSD; mRELEASE = up }
:: atomic { sa == S_BACK && !sRec && sj != RELEASED && (sq == GONE || mRUNNING) ->   /* source: discarding -> unknown */
            sEnds(DEAD) }
:: atomic { ((sa == S_RLSD && !sRec) || sa == S_BACK) && mDISCARDED ->    /* source: released, discarding -> returning */
            mDISCARDED = 0; sa = S_CONT }
   /* --reconnect is used up, or Ctrl-C: exit 5 */
:: atomic { (sa == S_RLSD || sa == S_BACK) && !sRec && (!up || !settle) ->   /* source: released, discarding -> unknown */
            sEnds(DEAD) }
#ifdef NO_FIRST
:: atomic { sa == S_CONT && sq == PAUSE ->                                /* source: returning -> aborted */
            sourceCont();
            if
            :: sBack = 1
            :: crash -> crashes++
            fi;
            sEnds(S_DONE) }
#else
   /* once `cont` may have been taken, no copy may be released any more */
:: atomic { sa == S_CONT && sRec && sq == PAUSE && !sBack -> sBack = 1 }
:: atomic { sa == S_CONT && sq == PAUSE && (!sRec || sBack) ->            /* source: returning -> aborted */
            sourceCont(); sBack = 1; sEnds(S_DONE) }
   /* `aborted` cannot be written: the copy is gone anyway */
:: atomic { sa == S_CONT && sq == PAUSE && !sRec && crash ->              /* source: returning -> aborted */
            crashes++; sourceCont(); sEnds(S_DONE) }
#endif
:: atomic { sa == S_CONT && sq == GONE ->                                 /* source: returning -> failed */
            sEnds(S_DONE) }
   /* `cont` answers an error */
:: atomic { sa == S_CONT && sq == PAUSE && crash ->                       /* source: returning -> unknown */
            crashes++; sEnds(DEAD) }
:: atomic { sa == S_ABRT && (sq == RUN || (sq == GONE && sRan)) ->
            if
            :: sBack = 1
            :: crash -> crashes++                                         /* `aborted` cannot be written */
            fi;
            mABORT = up; sa = S_SAID }
   /* DISCARDED, or it was waited for long enough */
:: atomic { sa == S_SAID ->                                               /* source: aborting -> aborted */
            sEnds(S_DONE) }
:: atomic { sa == S_ABRT && sq == GONE && !sRan && !sRead ->              /* source: aborting -> failed */
            mABORT = up; sEnds(S_DONE) }
#ifdef NO_HOLD
:: atomic { sa == S_ABRT && sq == GONE && !sRan && sRead ->               /* source: aborting -> failed */
            mABORT = up; sEnds(S_DONE) }
#else
   /* forward after all */
:: atomic { sa == S_ABRT && sq == GONE && !sRan && sRead ->               /* source: aborting -> finishing */
            sj = RELEASED; sa = S_FIN; mFINISH = up }
#endif
   /* nobody saw it run: nobody says ABORT */
:: atomic { sa == S_ABRT && crash ->                                      /* source: aborting -> failed */
            crashes++; sEnds(DEAD) }

/* ---- destination QEMU ---- */
:: atomic { dq == FM && da == D_LOAD -> dq = PAUSE }
:: atomic { dq == FM && da == DEAD && !dLost -> dq = GONE }               /* socket closed: exit(1) */
:: atomic { dq != GONE && crash -> crashes++; dq = GONE }

/* ---- destination agent ---- */
:: atomic { da == D_RECV && mFINISH && dq == FM ->                        /* destination: receiving -> loading */
            mFINISH = 0; da = D_LOAD }
#ifdef NO_EOFWAIT
:: atomic { da == D_LOAD && !up ->                                        /* destination: loading -> discarding */
            dDiscard() }
#endif
   /* --reconnect is over, Ctrl-C, or FINISH is not what came */
:: atomic { da == D_RECV && (!up || !settle) ->                           /* destination: receiving -> discarding */
            mREFUSE = up; dDiscard() }
:: atomic { (da == D_RECV || da == D_LOAD || da == D_LDED) && (mABORT || mDISCARD) ->   /* destination: receiving, loading, loaded -> discarding */
            mABORT = 0; mDISCARD = 0; dDiscard() }
:: atomic { (da == D_RECV || da == D_LOAD) && dq == GONE ->               /* destination: receiving, loading -> discarding */
            mREFUSE = up; dDiscard() }
:: atomic { da == D_LOAD && dq == PAUSE ->                                /* destination: loading -> loaded */
            dj = LOADED; da = D_LDED; mLOADED = up }
   /* `loaded` cannot be written */
:: atomic { da == D_LOAD && dq == PAUSE && crash ->                       /* destination: loading -> refusing */
            crashes++; da = D_REFU; mREFUSE = up }
:: atomic { da == D_LDED && !dRec && dq == GONE ->                        /* destination: loaded -> refusing */
            da = D_REFU; mREFUSE = up }
:: atomic { da == D_LDED && mFINISH -> mFINISH = 0; mLOADED = up }
:: atomic { da == D_LDED && mRELEASE ->                                   /* destination: loaded -> taking */
            mRELEASE = 0; da = D_TAKE }
   /* Ctrl-C, or --reconnect is over; the operator does so to settle */
:: atomic { da == D_LDED && (!settle || (!dRec && (sLost || (sRec && sq == GONE)))) ->   /* destination: loaded -> unknown */
            dEnds() }
:: atomic { (da == D_TAKE || da == D_STCK) && dj == LOADED -> dj = TAKING }
:: atomic { (da == D_TAKE || da == D_STCK) && dj == TAKING && dq == PAUSE -> destRuns() }
:: atomic { (da == D_TAKE || da == D_STCK) && dRan ->                     /* destination: taking, stuck -> running */
            dj = RUNNING; da = D_RUNS; mRUNNING = up }                    /* RESUME seen */
   /* `running` cannot be written: nothing changes */
:: atomic { (da == D_TAKE || da == D_STCK) && !dRec && dRan && crash ->   /* destination: taking, stuck -> running */
            crashes++; da = D_RUNS; mRUNNING = up }
#ifdef NO_REFUSED
:: atomic { (da == D_TAKE || da == D_STCK) && dq == GONE ->               /* destination: taking, stuck -> discarding */
            mREFUSE = up; dDiscard() }
#endif
   /* it never resumed, and we watched */
:: atomic { (da == D_TAKE || da == D_STCK) && !dRec && dq == GONE && !dRan ->   /* destination: taking, stuck -> discarding */
            mREFUSE = up; dDiscard() }
:: atomic { da == D_TAKE && dRec && dq == GONE && !dRan -> dEnds() }      /* recover */
#ifdef NO_STUCK
:: atomic { da == D_TAKE && dq == PAUSE && crash ->                       /* destination: taking -> discarding */
            crashes++; assert(sCurrent || !dCurrent); dDiscard() }        /* the only copy? */
#else
   /* `taking` cannot be written, or `cont` answers an error, or does not answer */
:: atomic { da == D_TAKE && !dRec && crash ->                             /* destination: taking -> stuck */
            crashes++; da = D_STCK; mSTUCK = up }
#endif
   /* whatever cannot be told apart from a crash */
:: atomic { da == D_TAKE && crash ->                                      /* destination: taking -> unknown */
            crashes++; dEnds() }
:: atomic { (da == D_TAKE || da == D_STCK) && mDISCARD && dLooked ->      /* destination: taking, stuck -> discarding */
            mDISCARD = 0; dDiscard() }
   /* says so again, and goes on trying; once all is well, it can */
:: atomic { da == D_STCK && mRELEASE && !settle -> mRELEASE = 0; mSTUCK = up }
   /* --max-stop has passed, or Ctrl-C */
:: atomic { da == D_STCK && !settle ->                                    /* destination: stuck -> unknown */
            dEnds() }
:: atomic { da == D_QUIT ->                                               /* destination: discarding -> discarded */
            dj = DISCARDED; da = D_DISC; mDISCARDED = up }
   /* `discarded` cannot be written: gone before `taking` says the same */
:: atomic { da == D_QUIT && dj < TAKING && crash ->                       /* destination: discarding -> discarded */
            crashes++; da = D_DISC; mDISCARDED = up }
:: atomic { da == D_REFU && mRELEASE -> mRELEASE = 0; mREFUSE = up }
:: atomic { da == D_REFU && (mDISCARD || mABORT) ->                       /* destination: refusing -> discarding */
            mDISCARD = 0; mABORT = 0; dDiscard() }
   /* Ctrl-C, or --reconnect is over: a copy that is still there may be the only one */
:: atomic { da == D_REFU && dq == GONE && (!up || !settle) ->             /* destination: refusing -> discarding */
            mREFUSE = up; dDiscard() }
:: atomic { da == D_REFU && dq == PAUSE && (!up || !settle || sRec) ->    /* destination: refusing -> unknown */
            dEnds() }
:: atomic { da == D_DISC && (mDISCARD || mABORT || mRELEASE) -> mDISCARD = 0; mABORT = 0; mRELEASE = 0; mDISCARDED = up }
:: atomic { da == D_RUNS && (mDISCARD || mABORT || mRELEASE) -> mDISCARD = 0; mABORT = 0; mRELEASE = 0; mRUNNING = up }
:: atomic { (da == D_RUNS || da == D_DISC) && !settle ->                  /* destination: running, discarded ends */
            dEnds() }

/* ---- link ---- */
:: atomic { up && !settle -> up = 0 }
:: atomic { !up && anyMsg && !settle -> noMsgs }
:: atomic { !up && sLive && da != DEAD && !sRec && !dRec -> sayAgain() }                 /* JOIN */
   /* RECOVER, answered by receive or recover; who loads answers when that is over, and who refuses will have ended */
:: atomic { !up && sa == S_REC && sq != FM && da != DEAD && da != D_LOAD && !(da == D_QUIT && dRec) &&
            !(da == D_REFU && dq == PAUSE && settle) ->                   /* recover */
            up = 1; noMsgs; sa = S_REC2;
            if
            :: da == D_RECV || da == D_DISC -> sSaw = W_NEVER
            :: da == D_REFU -> sSaw = (dq == GONE -> W_NEVER : W_LOADED)
            :: da == D_RUNS && dj == RUNNING -> sSaw = W_RUN
               /* what the journal says; whether QEMU is gone, it may see late */
            :: (da == D_LDED || da == D_TAKE || da == D_STCK || da == D_QUIT) && dj < TAKING -> sSaw = W_LOADED
            :: (da == D_LDED || da == D_TAKE || da == D_STCK || da == D_QUIT) && dj < TAKING && dq == GONE -> sSaw = W_NEVER
            :: (da == D_TAKE || da == D_STCK || da == D_QUIT || da == D_RTAK || da == D_RUNS) && dj == TAKING -> sSaw = W_TAKING
            :: (da == D_TAKE || da == D_STCK || da == D_QUIT || da == D_RTAK || da == D_RUNS) && dj == TAKING && dq == GONE -> sSaw = W_UNKN
#ifdef NO_TAKEGONE
            :: da == D_UNKN -> sSaw = W_NEVER
#else
            :: da == D_UNKN -> sSaw = W_UNKN
#endif
            fi }
:: atomic { !up && sRec && (sa == S_REC2 || sa == S_RLSD || sa == S_BACK || sa == S_WIPE) ->   /* recover */
            sSaw = 0; toSrc0; sa = S_REC }                                /* asks again */
:: atomic { sa == S_REC && !settle -> sEnds(DEAD) }                       /* recover */

/* ---- recover at the source: it decides, by the table ---- */
:: atomic { (sa == DEAD || sa == S_DONE) && !sLost &&
            (!settle || sa == DEAD || (sq == PAUSE && !moved && sj != DONE) || (dq == PAUSE && !dLost)) ->   /* recover */
            sEnds(S_REC); sRec = 1 }
:: atomic { (sa == S_REC || sa == S_REC2) && sq != FM && sj == DONE ->    /* recover */
            sSaw = 0; sa = S_QUIT }
   /* the VM is at the source, or went on from there */
:: atomic { rec2 && (sSaw == W_LOADED || sSaw == W_NEVER) && (sq == RUN || (sq == PAUSE && !ours)) ->   /* recover */
            sSaw = 0; sa = S_WIPE; mDISCARD = up }
   /* so says its journal, the QEMU being gone */
:: atomic { rec2 && (sSaw == W_LOADED || sSaw == W_NEVER) && sq == GONE && back ->   /* recover */
            sSaw = 0; sa = S_WIPE; mDISCARD = up }
:: atomic { rec2 && (sSaw == W_TAKING || sSaw == W_RUN || sSaw == W_UNKN) && (sq == RUN || moved) -> assert(false) }
:: atomic { rec2 && (sSaw == W_TAKING || sSaw == W_RUN) && sq == PAUSE && back -> assert(false) }
:: atomic { sa == S_WIPE && mDISCARDED -> mDISCARDED = 0; sBack = 1; sEnds(S_DONE) } /* recover */
   /* nobody answers, and nobody was released */
:: atomic { sa == S_REC && !settle && (sq == RUN || moved) && sj < RELEASED ->   /* recover */
            sBack = 1; sEnds(S_DONE) }
:: atomic { sa == S_WIPE && mRUNNING && sq != GONE -> assert(false) }
   /* given back, gone before `cont`, and the operator's word was taken over there */
:: atomic { sa == S_WIPE && mRUNNING && sq == GONE -> sEnds(DEAD) }       /* recover */
   /* the VM is the destination's */
:: atomic { rec2 && !back && (((sSaw == W_LOADED || sSaw == W_TAKING) && sq == PAUSE && ours) ||
                              (sSaw == W_LOADED && sq == GONE && sj == RELEASED) || (sSaw == W_TAKING && sq == GONE)) ->   /* recover */
            assert(sSaw == W_LOADED || sj == RELEASED || sq == GONE
#ifdef NO_JOURNAL
                   || 1
#endif
            );
#ifndef NO_JOURNAL
            sj = RELEASED;
#endif
            sSaw = 0; sa = S_RLSD; mRELEASE = up }
   /* the VM comes back; what may still be there of its copy goes first */
:: atomic { rec2 && (sSaw == W_NEVER || (sSaw == W_LOADED && back)) && sq == PAUSE && ours ->   /* recover */
            sSaw = 0; sa = S_BACK; mDISCARD = up }
:: atomic { rec2 && ((sSaw == W_NEVER && !back) || sSaw == W_UNKN) && sq == GONE ->   /* recover */
            sEnds(S_DONE) }
:: atomic { rec2 && sSaw == W_RUN && (sq == PAUSE || sq == GONE) && !back ->   /* recover */
            sj = DONE; sSaw = 0; sa = S_QUIT }
   /* an answer that it did not ask for: run recover again */
:: atomic { sRec && (sa == S_RLSD || sa == S_BACK || sa == S_WIPE) && (mREFUSE || mSTUCK) ->   /* recover */
            sEnds(DEAD) }
:: atomic { sRec && ((sa == S_RLSD && mDISCARDED) || (sa == S_BACK && mRUNNING)) ->   /* recover */
            sEnds(DEAD) }
   /* the operator knows more than the journals: gone, and it never ran */
:: atomic { rec2 && sSaw == W_UNKN && sq == PAUSE && ours && dNeverRan -> /* recover */
            sSaw = 0; sa = S_BACK; mDISCARD = up }
:: atomic { sa == S_REC && dLost && sq == PAUSE && ours && sj != DONE && (sj < RELEASED || dNeverRan) ->   /* recover */
            sa = S_CONT }
   /* the same of a host that is only fenced, and comes back with a copy that is loaded */
:: atomic { sa == S_REC && !settle && da == DEAD && dj < TAKING && sq == PAUSE && ours && sj != DONE ->   /* recover */
            sa = S_CONT }
   /* given back, and `cont` not taken: no word is needed any more */
:: atomic { sa == S_REC && back && (!settle || dLost) && sq == PAUSE && ours && sj != DONE ->   /* recover */
            sa = S_CONT }

/* ---- recover at the destination: takes its place again, and answers ---- */
:: atomic { da == DEAD && !dLost && dq != FM ->                           /* recover */
            dRec = 1;
            if
            :: dj == DISCARDED -> da = D_DISC; dq = GONE
            :: dj == RUNNING -> da = D_RUNS
            :: dj == TAKING && dq == GONE -> da = D_UNKN
            :: dj == TAKING && dq != GONE -> da = D_RTAK
            :: dj == LOADED && dq == GONE -> dDiscard()
            :: dj == LOADED && dq != GONE -> da = D_LDED
#ifdef NO_COMPLETED
            :: dj == NONE -> dDiscard()
#else
            :: dj == NONE && dq == PAUSE -> dj = LOADED; da = D_LDED
            :: dj == NONE && dq == GONE -> dDiscard()
#endif
            fi }
:: atomic { (da == D_UNKN || da == D_RTAK) && !settle -> dEnds() }        /* recover */
:: atomic { da == D_UNKN && mDISCARD -> mDISCARD = 0; dDiscard() }        /* recover */
   /* it may be the only copy, for all that it saw: look again */
:: atomic { da == D_RTAK && mDISCARD -> mRUNNING = up; dEnds() }          /* recover */
:: atomic { da == D_RTAK && mRELEASE -> mRELEASE = 0; da = D_TAKE }       /* recover */
   /* released to this side, and only this side could have taken that back */
:: atomic { da == D_RTAK && !up -> da = D_TAKE }                          /* recover */
   /* the operator's word: dead for good, and it never ran */
:: atomic { da == D_LDED && dRec && (sLost || sq == GONE) && sNeverRan -> da = D_TAKE }   /* recover */

/* ---- crashes ---- */
:: atomic { sLive && crash -> crashes++; sEnds(DEAD) }                    /* crash */
:: atomic { da != DEAD && crash ->                                        /* crash */
            crashes++;
            if
            :: da == D_LOAD && dq == FM -> dq = PAUSE        /* EOF had reached QEMU */
            :: true
            fi;
            dEnds() }
:: atomic { !sLost && crash -> crashes++; sLost = 1; sq = GONE; shut = 0; sEnds(DEAD) }   /* crash */
:: atomic { !dLost && crash -> crashes++; dLost = 1; dq = GONE; dEnds() } /* crash */

/* ---- the operator migrates the resumed VM elsewhere, with Sealift or anything else ---- */
:: atomic { sq == RUN && !sLive && !sLost && !settle ->
            sq = PAUSE; moved = 1;
            if
            :: sj != DONE -> sBack = 1                                    /* `send` writes `ran` */
            :: true
            fi }

/* ---- from here on nothing breaks: does exactly one run in the end? ---- */
:: atomic { !settle -> settle = 1; alive0 = (sCurrent || dCurrent || moved) }
:: else -> atomic { assert(settle);
           assert(!alive0 || running == 1);
           assert(!(dq == PAUSE && sRan && !sLost && !dLost && sq != GONE));    /* no stale copy is left lying about */
           finished = 1 }
           break
od
}

ltl live { [] (settle -> <> finished) }
