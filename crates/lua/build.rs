//! Builds LuaJIT for this crate.
//!
//! `luajit-src` copies LuaJIT into OUT_DIR and runs `make` there. We put a small `make` of our
//! own in front of the real one: it lets this program edit the copy (see `EDITS`) and adds
//! `-DLUAJIT_ENABLE_CHECKHOOK`, which makes compiled code look at the hook mask, so that a
//! compiled endless loop can be interrupted. LuaJIT's source never enters the repository.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where the wrapper `make` tells this program which directory to edit.
const EDIT_DIRECTORY: &str = "LUAR_LUAJIT_EDIT_DIRECTORY";

struct Edit {
    file: &'static str,
    find: &'static str,
    replace: &'static str,
}

/// Changes to LuaJIT's source, each at exactly one place (anything else stops the build).
const EDITS: &[Edit] = &[
    // `1LL` and `1i` would create cdata values, which no part of the sandbox expects.
    Edit {
        file: "lj_lex.c",
        find: "(LJ_HASFFI ? (STRSCAN_OPT_LL|STRSCAN_OPT_IMAG) : 0)",
        replace: "0",
    },
    // Lua 5.1 knows no \x, \u and \z, and takes an unknown escape as the character itself.
    Edit { file: "lj_lex.c", find: "case 'x':  /*", replace: "case 0x10000+'x':  /*" },
    Edit { file: "lj_lex.c", find: "case 'u':  /*", replace: "case 0x10000+'u':  /*" },
    Edit { file: "lj_lex.c", find: "case 'z':  /*", replace: "case 0x10000+'z':  /*" },
    Edit {
        file: "lj_lex.c",
        find: "if (!lj_char_isdigit(c))\n\t  goto err_xesc;",
        replace: "if (!lj_char_isdigit(c))\n\t  break;",
    },
    // A script's main chunk takes no arguments; as a fixed-arity function its calls are cheaper.
    Edit {
        file: "lj_parse.c",
        find: "/* Entry point of bytecode parser. */",
        replace: "static __thread int luar_main_chunk_is_fixed = 0;\n\
                  void luar_fix_main_chunk(int on) { luar_main_chunk_is_fixed = on; }\n",
    },
    Edit {
        file: "lj_parse.c",
        find: "  fs.flags |= PROTO_VARARG;  /* Main chunk is always a vararg func. */",
        replace: "  if (!luar_main_chunk_is_fixed) fs.flags |= PROTO_VARARG;",
    },
    // Lua 5.1 keeps a function's frame while it calls a C function in tail position; LuaJIT drops
    // it, and with it the line an error is reported at. Tail calls stay for what recursion is
    // written with (local functions, not in the main chunk), not for `return redis.call(…)`.
    Edit {
        file: "lj_parse.c",
        find: "/* Parse primary expression with safe navigation. */",
        replace: "static __thread ExpKind luar_callee;\n",
    },
    Edit {
        file: "lj_parse.c",
        find: "{  /* Parse multiple expression suffixes. */\n    int nav = 0;",
        replace: "{\n    int nav = 0; ExpKind callee = VINDEXED;",
    },
    Edit {
        file: "lj_parse.c",
        find: "ls->tok == TK_string || ls->tok == '{') {\n      expr_tonextreg(fs, v);",
        replace: "ls->tok == TK_string || ls->tok == '{') {\n      callee = v->k;\n      \
                  expr_tonextreg(fs, v);",
    },
    Edit {
        file: "lj_parse.c",
        find: "    call:\n      parse_args(ls, v);",
        replace: "    call:\n      parse_args(ls, v);\n      luar_callee = callee;",
    },
    Edit {
        file: "lj_parse.c",
        find: "if (bc_op(*ip) == BC_VARG) goto notailcall;",
        replace: "if (bc_op(*ip) == BC_VARG || !fs->prev ||\n\t    \
                  !(luar_callee == VLOCAL || luar_callee == VUPVAL)) goto notailcall;",
    },
    // Long loops inside C look at the hook mask as compiled code does.
    Edit {
        file: "lib_string.c",
        find: "  init: /* using goto's to optimize tail recursion */",
        replace: "  init:\n  if (LJ_UNLIKELY(G(ms->L)->hookmask & LUA_MASKCOUNT)) {\n    \
                  lua_Hook hook = lua_gethook(ms->L); lua_Debug ar; ar.event = LUA_HOOKCOUNT;\n    \
                  if (hook) hook(ms->L, &ar);\n  }",
    },
    Edit {
        file: "lib_string.c",
        find: "  while ((s+i)<ms->src_end && singlematch(uchar(*(s+i)), p, ep))\n    i++;\n  /* keeps",
        replace: "  while ((s+i)<ms->src_end && singlematch(uchar(*(s+i)), p, ep)) {\n    i++;\n    \
                  if (LJ_UNLIKELY(G(ms->L)->hookmask & LUA_MASKCOUNT)) {\n    \
                  lua_Hook hook = lua_gethook(ms->L); lua_Debug ar; ar.event = LUA_HOOKCOUNT;\n    \
                  if (hook) hook(ms->L, &ar);\n    }\n  }\n  /* keeps",
    },
    Edit {
        file: "lib_table.c",
        find: "static int sort_comp(lua_State *L, int a, int b)\n{",
        replace: "extern int luar_stack_is_deep(void);\n\
                  static int sort_comp(lua_State *L, int a, int b)\n{\n  \
                  if (luar_stack_is_deep()) lj_err_callermsg(L, \"C stack overflow\");\n  \
                  if (LJ_UNLIKELY(G(L)->hookmask & LUA_MASKCOUNT)) {\n    \
                  lua_Hook hook = lua_gethook(L); lua_Debug ar; ar.event = LUA_HOOKCOUNT;\n    \
                  if (hook) hook(L, &ar);\n  }",
    },
    // Functions of ours that are written in Lua pass for C functions: no position of theirs stands
    // in front of an error's text.
    Edit {
        file: "lj_debug.c",
        find: "	GCproto *pt = funcproto(fn);\n	char buf[LUA_IDSIZE];\n	lj_debug_shortname(buf, proto_chunkname(pt), pt->firstline);\n	lj_strfmt_pushf(L, \"%s:%d: %s\", buf, line, msg);\n	return;",
        replace: "	GCproto *pt = funcproto(fn);\n	char buf[LUA_IDSIZE];\n	\
                  if (strcmp(strdata(proto_chunkname(pt)), \"=luar\")) {\n	\
                  lj_debug_shortname(buf, proto_chunkname(pt), pt->firstline);\n	\
                  lj_strfmt_pushf(L, \"%s:%d: %s\", buf, line, msg);\n	return;\n	}",
    },
    // LuaJIT bounds its own stack but not the machine's, which C functions that call back use up
    // level by level (`string.gsub` takes 8 KB of it).
    Edit {
        file: "lj_api.c",
        find: "LUA_API void lua_call(lua_State *L, int nargs, int nresults)\n{",
        replace: "static __thread const char *luar_stack_floor;\n\
                  void luar_set_stack_floor(const char *floor) { luar_stack_floor = floor; }\n\
                  int luar_stack_is_deep(void) { char here; return &here < luar_stack_floor; }\n\
                  LUA_API void lua_call(lua_State *L, int nargs, int nresults)\n{\n  \
                  if (luar_stack_is_deep()) lj_err_callermsg(L, \"C stack overflow\");",
    },
    // An error raised by the hook inside of a reader function ends loading; without this no hook
    // would run ever after.
    Edit {
        file: "lj_load.c",
        find: "  status = lj_vm_cpcall(L, NULL, &ls, cpparser);",
        replace: "  {\n    global_State *g = G(L); uint8_t hooks = hook_save(g);\n    \
                  status = lj_vm_cpcall(L, NULL, &ls, cpparser);\n    \
                  if (status) hook_restore(g, hooks);\n  }",
    },
    // Keys of one application differ in a few places (`user:000012345:cart`), which LuaJIT's hash of
    // four samples mostly does not look at: their strings would share chains. This one reads every
    // byte of short strings, with fewer instructions. Chains that grow long still get their second
    // hash.
    Edit {
        file: "lj_str.c",
        find: "/* Keyed sparse ARX string hash. Constant time. */\nstatic StrHash hash_sparse(uint64_t seed, const char *str, MSize len)\n{",
        replace: "static LJ_AINLINE uint64_t luar_word(const char *p)\n\
                  { uint64_t w; memcpy(&w, p, 8); return w; }\n\
                  static LJ_AINLINE uint64_t luar_mix(uint64_t a, uint64_t b)\n\
                  { unsigned __int128 m = (unsigned __int128)a * b;\n  \
                  return (uint64_t)m ^ (uint64_t)(m >> 64); }\n\
                  static LJ_AINLINE uint64_t luar_mix_words(uint64_t h, const char *p)\n\
                  { return luar_mix(luar_word(p) ^ h, luar_word(p+8) ^ 0x9e3779b97f4a7c15ull); }\n\
                  static StrHash hash_sparse(uint64_t seed, const char *str, MSize len)\n{\n  \
                  uint64_t mixed = seed ^ len * 0xd6e8feb86659fd93ull;\n  \
                  if (len >= 4 && len < 8) {\n    \
                  uint64_t word = lj_getu32(str) | (uint64_t)lj_getu32(str+len-4) << 32;\n    \
                  mixed = luar_mix(word ^ mixed, 0x9e3779b97f4a7c15ull);\n    \
                  return (StrHash)(mixed ^ (mixed >> 32));\n  \
                  } else if (len >= 8) {\n    \
                  if (len > 128) {\n      \
                  mixed = luar_mix_words(mixed, str + (len >> 2));\n      \
                  mixed = luar_mix_words(mixed, str + (len >> 1));\n      \
                  mixed = luar_mix_words(mixed, str);\n    \
                  } else {\n      \
                  MSize at;\n      \
                  for (at = 0; at + 16 < len; at += 16) mixed = luar_mix_words(mixed, str + at);\n    \
                  }\n    \
                  mixed = luar_mix(luar_word(str + (len < 16 ? 0 : len - 16)) ^ mixed,\n\t\t     \
                  luar_word(str + len - 8) ^ 0x9e3779b97f4a7c15ull);\n    \
                  return (StrHash)(mixed ^ (mixed >> 32));\n  }",
    },
    // Strings that scripts get again and again are compared without a call.
    Edit {
        file: "lj_str.c",
        find: "	if (memcmp(str, strdata(sx), len) == 0) {",
        replace: "	if (luar_same(str, strdata(sx), len)) {",
    },
    Edit {
        file: "lj_str.c",
        find: "/* Intern a string and return string object. */",
        replace: "static LJ_AINLINE int luar_same(const char *a, const char *b, MSize len)\n{\n  \
                  if (len > 16 || len < 4) return memcmp(a, b, len) == 0;\n  \
                  if (len < 8) return lj_getu32(a) == lj_getu32(b) &&\n\t\t      \
                  lj_getu32(a+len-4) == lj_getu32(b+len-4);\n  \
                  return luar_word(a) == luar_word(b) && luar_word(a+len-8) == luar_word(b+len-8);\n}\n",
    },
    // A heap of many small strings would halve its table of strings after each collection and
    // double it before the next.
    Edit {
        file: "lj_gc.c",
        find: "      if (g->str.num <= (g->str.mask >> 2) && g->str.mask > LJ_MIN_STRTAB*2-1)",
        replace: "      if (g->str.num <= (g->str.mask >> 4) && g->str.mask > LJ_MIN_STRTAB*2-1)",
    },
    // Sixteen chains of strings are swept in a step, which are few strings, and those to come are
    // fetched meanwhile. There are at least 256 chains, and always a power of two.
    Edit {
        file: "lj_gc.c",
        find: "    gc_sweepstr(g, &g->str.tab[g->gc.sweepstr++]);  /* Sweep one chain. */",
        replace: "    MSize luar_end = g->gc.sweepstr + 16;\n    \
                  while (g->gc.sweepstr < luar_end) {\n      \
                  GCRef ahead = g->str.tab[(g->gc.sweepstr+12) & g->str.mask];\n      \
                  __builtin_prefetch((void *)(gcrefu(ahead) & ~(uintptr_t)1), 1);\n      \
                  gc_sweepstr(g, &g->str.tab[g->gc.sweepstr++]);\n    }",
    },
    Edit {
        file: "lj_gc.c",
        find: "    return GCSWEEPCOST;\n    }\n  case GCSsweep: {",
        replace: "    return 16*GCSWEEPCOST;\n    }\n  case GCSsweep: {",
    },
    // Most numbers that scripts read from strings are a few digits.
    Edit {
        file: "lj_strscan.c",
        find: "int LJ_FASTCALL lj_strscan_num(GCstr *str, TValue *o)\n{\n",
        replace: "static LJ_NOINLINE int luar_strscan_any(GCstr *str, TValue *o);\n\
                  int LJ_FASTCALL lj_strscan_num(GCstr *str, TValue *o)\n{\n  \
                  const uint8_t *p = (const uint8_t *)strdata(str), *end = p + str->len;\n  \
                  int64_t value = 0;\n  uint32_t digit;\n  \
                  if (str->len - 1u >= 15) return luar_strscan_any(str, o);\n  \
                  while (p < end && (digit = (uint32_t)*p - '0') < 10)\n    \
                  p++, value = value * 10 + digit;\n  \
                  if (p < end) return luar_strscan_any(str, o);\n  \
                  o->n = (double)value;\n  return 1;\n}\n\
                  static LJ_NOINLINE int luar_strscan_any(GCstr *str, TValue *o)\n{\n",
    },
    // Scripts are kept as bytecode, where table constructors lose the empty places at their end.
    // What is computed for the last place of `{1, x}` would have none in the array then; it is
    // `false` until it is computed.
    Edit {
        file: "lj_parse.c",
        find: "  uint32_t narr = 1;  /* First array index. */\n",
        replace: "  uint32_t narr = 1;  /* First array index. */\n  uint32_t luar_last = 0;\n",
    },
    Edit {
        file: "lj_parse.c",
        find: "      if (val.k != VCALL) {\n\texpr_toanyreg(fs, &val);\n\tvcall = 0;",
        replace: "      if (val.k != VCALL) {\n\texpr_toanyreg(fs, &val);\n\t\
                  if (vcall) luar_last = narr-1;\n\tvcall = 0;",
    },
    Edit {
        file: "lj_parse.c",
        find: "      lj_tab_reasize(fs->L, t, narr-1);\n",
        replace: "      lj_tab_reasize(fs->L, t, narr-1);\n    \
                  if (luar_last && tvisnil(arrayslot(t, luar_last)))\n      \
                  setboolV(arrayslot(t, luar_last), 0);\n",
    },
    // Plain search in linear time: it runs inside compiled code, where nothing can interrupt it.
    Edit {
        file: "lj_str.c",
        find: "const char *lj_str_find(const char *s, const char *p, MSize slen, MSize plen)\n{",
        replace: "extern void *memmem(const void *, size_t, const void *, size_t);\n\
                  const char *lj_str_find(const char *s, const char *p, MSize slen, MSize plen)\n{\n  \
                  if (plen > 1) return (const char *)memmem(s, slen, p, plen);",
    },
];

fn main() {
    if let Some(directory) = env::var_os(EDIT_DIRECTORY) {
        return edit(Path::new(&directory));
    }
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let path = env::var_os("PATH").unwrap_or_default();
    let tools = out.join("tools");
    write_make_wrapper(&tools, &path);
    let mut with_wrapper = tools.into_os_string();
    with_wrapper.push(":");
    with_wrapper.push(&path);
    // SAFETY: a build script runs one thread, so nobody reads the environment meanwhile.
    unsafe { env::set_var("PATH", with_wrapper) };
    luajit_src::Build::new().debug(false).build().print_cargo_metadata();
    println!("cargo:rerun-if-changed=src/glue.c");
    cc::Build::new()
        .file("src/glue.c")
        .include(out.join("luajit-build").join("src"))
        .define("LUAJIT_ENABLE_CHECKHOOK", None)
        .opt_level(2)
        .compile("luar_glue");
}

fn edit(directory: &Path) {
    for edit in EDITS {
        let file = directory.join(edit.file);
        let text = fs::read_to_string(&file).expect("LuaJIT's source is readable");
        let places = text.matches(edit.find).count();
        assert!(places == 1, "{}: {places} places hold {:?}", edit.file, edit.find);
        fs::write(&file, text.replace(edit.find, edit.replace)).expect("the copy is writable");
    }
}

fn write_make_wrapper(tools: &Path, path: &OsString) {
    fs::create_dir_all(tools).expect("OUT_DIR is writable");
    let make = env::split_paths(path)
        .flat_map(|directory| ["make", "gmake"].map(|name| directory.join(name)))
        .find(|candidate| candidate.is_file() && !candidate.starts_with(tools))
        .expect("building LuaJIT needs make");
    let editor = env::current_exe().expect("the build script has a path");
    let script = format!(
        "#!/bin/sh\nset -e\n{EDIT_DIRECTORY}=\"$PWD\" \"{}\"\n\
         XCFLAGS=\"$XCFLAGS -DLUAJIT_ENABLE_CHECKHOOK\"\nexport XCFLAGS\n\
         PATH=\"{}\"\nexport PATH\nexec \"{}\" \"$@\"\n",
        editor.display(),
        path.to_string_lossy(),
        make.display()
    );
    let wrapper = tools.join("make");
    fs::write(&wrapper, script).expect("OUT_DIR is writable");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("chmod works");
}
