/* The few things that need LuaJIT's internal headers: a check that internals.rs has the layout
** right, and table building without a trip through the Lua stack. Nothing here runs the garbage
** collector, so values that are not anchored yet stay alive until luar_push_value. */
#define LUA_CORE
#include <string.h>
#include "lj_obj.h"
#include "lj_gc.h"
#include "lj_str.h"
#include "lj_tab.h"
#include "lj_state.h"
#include "lj_jit.h"
#include "lj_dispatch.h"

_Static_assert(LJ_GC64, "internals.rs knows the GC64 layout only");
_Static_assert(sizeof(TValue) == 8 && sizeof(Node) == 24, "TValue, Node");
_Static_assert(offsetof(Node, val) == 0 && offsetof(Node, key) == 8, "Node");
_Static_assert(offsetof(GCtab, array) == 16 && offsetof(GCtab, node) == 40, "GCtab");
_Static_assert(offsetof(GCtab, metatable) == 32, "GCtab");
_Static_assert(offsetof(GCtab, asize) == 48 && offsetof(GCtab, hmask) == 52, "GCtab");
_Static_assert(offsetof(GCstr, len) == 20 && sizeof(GCstr) == 24, "GCstr");
_Static_assert(LJ_TNIL == ~0u && LJ_TFALSE == ~1u && LJ_TTRUE == ~2u, "tags");
_Static_assert(LJ_TLIGHTUD == ~3u && LJ_TSTR == ~4u && LJ_TTAB == ~11u, "tags");
#define LJ_TNIL_BITS (~(uint64_t)0)
_Static_assert(sizeof(((Node *)0)->next) == 8, "Node");
_Static_assert(LJ_TNUMX == ~13u, "tags");

void luar_push_value(lua_State *L, uint64_t bits)
{
  TValue value;
  value.u64 = bits;
  copyTV(L, L->top, &value);
  incr_top(L);
  lj_gc_check(L);
}

uint64_t luar_value_at(GCtab *t, int32_t key)
{
  cTValue *value = lj_tab_getint(t, key);
  return value ? value->u64 : LJ_TNIL_BITS;
}

void *luar_new_array(lua_State *L, const TValue *values, MSize count)
{
  GCtab *t = lj_tab_new(L, count ? count + 1 : 0, 0);
  if (count) memcpy(tvref(t->array) + 1, values, count * sizeof(TValue));
  return t;
}

void *luar_new_table(lua_State *L, MSize keys)
{
  GCtab *t = lj_tab_new(L, 0, keys ? hsize2hbits(keys) : 0);
  t->nomm = 0; /* It may be made a metatable. */
  return t;
}

/* For a table that nothing has marked yet, so there is no barrier. */
void luar_set_pairs(lua_State *L, GCtab *t, const TValue *pairs, MSize count)
{
  MSize i;
  for (i = 0; i < count; i++) {
    TValue *slot = lj_tab_setstr(L, t, strV(&pairs[2 * i]));
    copyTV(L, slot, &pairs[2 * i + 1]);
  }
}

/* A table with the keys of another one, which has no array part and stays as it is: its nodes are
** copied as they lie, and the i-th value goes to node slots[i]. */
void *luar_new_object_like(lua_State *L, GCtab *like, const uint8_t *slots, const TValue *pairs,
			   MSize count)
{
  GCtab *t = lj_tab_new(L, 0, lj_fls(like->hmask) + 1);
  Node *from = noderef(like->node), *to = noderef(t->node);
  MSize i, mask = like->hmask;
  t->nomm = 0;
  for (i = 0; i <= mask; i++) {
    Node *next = nextnode(&from[i]);
    to[i].key = from[i].key;
    if (next) setmref(to[i].next, to + (next - from));
  }
  setfreetop(t, to, to + (getfreetop(like, from) - from));
  for (i = 0; i < count; i++) copyTV(L, &to[slots[i]].val, &pairs[2 * i + 1]);
  return t;
}

/* In which nodes the keys of such a table lie; 0 if it cannot be copied that way. */
int luar_slots_of(GCtab *t, const TValue *pairs, MSize count, uint8_t *slots)
{
  Node *node = noderef(t->node);
  MSize i;
  if (t->hmask == 0 || t->hmask > 255) return 0;
  for (i = 0; i < count; i++)
    slots[i] = (uint8_t)((Node *)lj_tab_getstr(t, strV(&pairs[2 * i])) - node);
  return 1;
}

/* Pushes a list with room for so many values, all nil, and returns where the first one goes. They
** are to be written before anything else happens in the VM: the table is new, so it needs no
** barrier. */
TValue *luar_push_list(lua_State *L, MSize count)
{
  GCtab *t = lj_tab_new(L, count ? count + 1 : 0, 0);
  settabV(L, L->top, t);
  incr_top(L);
  return tvref(t->array) + 1;
}

/* The list of so many values that a field of a table holds, returned as by luar_push_list: they are
** all to be written before the collector runs. NULL if something else is there, or a script has made
** something else of it. */
TValue *luar_old_list(lua_State *L, GCtab *t, GCstr *name, MSize count)
{
  cTValue *slot = lj_tab_getstr(t, name);
  GCtab *list;
  if (slot == NULL || !tvistab(slot)) return NULL;
  list = tabV(slot);
  if (list->asize != (count ? count + 1 : 0) || noderef(list->node) != &G(L)->nilnode ||
      tabref(list->metatable) != NULL)
    return NULL;
  if (count == 0) return (TValue *)slot; /* Nothing is written. */
  setnilV(tvref(list->array)); /* What has index 0 was not here. */
  lj_gc_anybarriert(L, list);
  return tvref(list->array) + 1;
}

/* Collects a step of garbage if it is time. */
void luar_collect_step(lua_State *L)
{
  lj_gc_check(L);
}

/* Pops a table and stores it in another one under a string that lives on. */
void luar_set_field(lua_State *L, GCtab *t, GCstr *name)
{
  TValue *slot = lj_tab_setstr(L, t, name);
  copyTV(L, slot, L->top - 1);
  lj_gc_anybarriert(L, t);
  L->top--;
  lj_gc_check(L);
}

/* The argument at a place of the running C function, which has that many. */
uint64_t luar_argument(lua_State *L, MSize place)
{
  return (L->base + place - 1)->u64;
}

/* The metatable is anchored elsewhere and the table is new, so no barrier. */
void luar_mark_new(GCtab *t, GCtab *metatable)
{
  setgcref(t->metatable, obj2gco(metatable));
}

uint32_t luar_list_len(GCtab *t)
{
  return lj_tab_len(t);
}

void *luar_new_string(lua_State *L, const char *text, size_t len)
{
  return lj_str_new(L, text, len);
}

/* Collect soon: the allocator calls this when the heap nears its limit, because LuaJIT does not
** collect when an allocation fails. */
void luar_collect_soon(lua_State *L)
{
  global_State *g = G(L);
  if (g->gc.threshold > g->gc.total) g->gc.threshold = g->gc.total;
}

/* Traces that exist now. */
uint32_t luar_trace_count(lua_State *L)
{
  jit_State *J = L2J(L);
  uint32_t count = 0, i;
  for (i = 1; i < J->sizetrace; i++)
    if (traceref(J, i)) count++;
  return count;
}

/* An address that moves whenever machine code is added. */
void *luar_code_top(lua_State *L)
{
  return L2J(L)->mctop;
}

/* Whether C code is called from a trace just now. */
int luar_in_trace(lua_State *L)
{
  return G(L)->vmstate >= 0;
}
