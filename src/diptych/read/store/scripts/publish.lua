-- Ends a pass: raises the floor, purges tombstones, and lets readers trust the generation for a time.
--
-- KEYS: lease, marker, tombstones, keeper.
-- ARGV: run id, replication id, the lease's text, the lease's end (milliseconds of this server's clock), the pass's
--       floor, the floor that the fence relies on, the number of the pass, the number of tombstones to purge at most,
--       and the name of the process.
-- Returns OK, ELSEWHERE, GONE, FOREIGN (another database's lease is there), or BEHIND (older data than the fence
-- relies on).

if not is_here(ARGV[1], ARGV[2]) then
  return 'ELSEWHERE'
end
-- * Two databases under one namespace would serve each other's rows in turn. After a database was put elsewhere the
-- lease of its former history is of another history too: that lease runs out.
local _, history = leased_here(KEYS[1], ARGV[1], ARGV[2])
if history and history ~= string.match(ARGV[3], '([^:]+)$') then
  return 'FOREIGN'
end
local marker = redis.call('GET', KEYS[2])
local floor = marker and floor_of(marker)
if not floor then
  return 'GONE'
end
if floor < tonumber(ARGV[6]) then
  return 'BEHIND'
end
marker = raised(marker, ARGV[5], ARGV[7])
redis.call('SET', KEYS[2], marker)

-- A tombstone goes once every change that could still be on its way to this document is below the floor, where such
-- changes are refused without a tombstone: when the floor has reached the xmax of a snapshot that saw the deletion.
local reached = string.format('%.0f', floor_of(marker))
local due = redis.call('ZRANGE', KEYS[3], '-inf', reached, 'BYSCORE', 'LIMIT', 0, ARGV[8])
for _, tombstone in ipairs(due) do
  local document = string.sub(tombstone, 9)
  -- Only this very tombstone: the document may have been written, and deleted, again.
  if redis.call('GET', document) == string.sub(tombstone, 1, 8) then
    redis.call('DEL', document)
  end
  redis.call('ZREM', KEYS[3], tombstone)
end

-- Neither replicated nor written to the append-only file: data restored from either have no right to the lease.
redis.set_repl(redis.REPL_NONE)
if text(KEYS[1]) ~= ARGV[3] or redis.call('PEXPIRETIME', KEYS[1]) < tonumber(ARGV[4]) then
  -- * An absolute time, counted from before the promise: a lease counted from now would outlast the promise by as
  --   long as this message was on its way, and commands would be acknowledged that its readers don't see.
  redis.call('SET', KEYS[1], ARGV[3], 'PXAT', ARGV[4])
end
-- For people who ask who makes the passes: nothing rests on it.
redis.call('SET', KEYS[4], ARGV[9], 'PXAT', ARGV[4])
return 'OK'
