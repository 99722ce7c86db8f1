-- Writes documents with their list entries into one generation of a read model, each only if it is newer.
--
-- KEYS: marker, entries (hash: document key -> its row and entries), tombstones (sorted set: when they may go),
--       n list indexes, then the document keys.
-- ARGV: run id, replication id, the number of a builder's script ('' for changes), the floor that the generation has
--       afterwards ('' for the one it has), n, then for each document: its stamp (8 bytes), its transaction, the
--       floor at which it may go if it is a tombstone ('' if that is not known), its body ('' for a deleted one), its
--       row, its role ('passes': brought by a pass, with all before it; 'begins': a new row; 'follows': the document it
--       replaces must be of its row; 'continues': it belongs to the change of the one before), and its n list entries.
-- Returns OK; EARLY (written, but a document that should have been there was not); ELSEWHERE (another Redis), GONE (no
-- such generation here), CLOSED or GAP (a builder's script out of turn).

if not is_here(ARGV[1], ARGV[2]) then
  return 'ELSEWHERE'
end
local marker = redis.call('GET', KEYS[1])
if not marker then
  -- The data were lost, or another generation has replaced this one.
  return 'GONE'
end

local number, floor = tonumber(ARGV[3]), 0
if number then
  -- A builder's scripts are accepted one after the other and only once: a late duplicate would bring back, at
  -- position 0, what was deleted and whose tombstone has been purged.
  local done = tonumber(string.match(marker, '^b(%d+)$'))
  if not done then
    return marker == 'f' .. ARGV[4] and 'OK' or 'CLOSED'
  end
  if number <= done then
    return 'OK'
  end
  if number > done + 1 then
    return 'GAP'
  end
else
  floor = floor_of(marker) or 0
end

local lists = tonumber(ARGV[5])
local at = 6
local outcome, is_early = 'OK', false
for k = 4 + lists, #KEYS do
  local document, stamp, body = KEYS[k], ARGV[at], ARGV[at + 3]
  -- What is below the floor is in already. Were it written, a late message could bring back a document that was
  -- deleted since, once the tombstone that would refuse it has been purged.
  if number or tonumber(ARGV[at + 1]) >= floor then
    local stored = redis.call('GETRANGE', document, 0, 7)
    -- * Without the comparison a late or repeated message would put an older state over a newer one.
    if stored == '' or is_newer(stamp, stored) then
      local former = redis.call('HGET', KEYS[2], document)
      former = former and cmsgpack.unpack(former)
      -- * An earlier change of the row, which gave it this address, is not in yet (its process was killed): the row
      -- may still be shown at a former address. That this change is in does not make it visible. Nor are those after
      -- it, until a pass has been here: so the document is nobody's.
      local role = ARGV[at + 5]
      is_early = role == 'follows' and not (former and former[1] == ARGV[at + 4]) or role == 'continues' and is_early
      if is_early then
        outcome = 'EARLY'
      end
      for i = 1, former and lists or 0 do
        redis.call('ZREM', KEYS[3 + i], former[1 + i])
      end
      redis.call('SET', document, stamp .. body)
      if body == '' then
        redis.call('HDEL', KEYS[2], document)
      else
        local entries = { is_early and '' or ARGV[at + 4] }
        for i = 1, lists do
          entries[1 + i] = ARGV[at + 5 + i]
          redis.call('ZADD', KEYS[3 + i], 0, entries[1 + i])
        end
        redis.call('HSET', KEYS[2], document, cmsgpack.pack(entries))
      end
      stored = stamp
    elseif ARGV[at + 5] == 'passes' and stored == stamp and body ~= '' then
      local entries = cmsgpack.unpack(redis.call('HGET', KEYS[2], document))
      if entries[1] ~= ARGV[at + 4] then
        entries[1] = ARGV[at + 4]
        redis.call('HSET', KEYS[2], document, cmsgpack.pack(entries))
      end
    end
    if body == '' and ARGV[at + 2] ~= '' and stored == stamp then
      redis.call('ZADD', KEYS[3], ARGV[at + 2], stamp .. document)
    end
  end
  at = at + 6 + lists
end

if ARGV[4] ~= '' then
  redis.call('SET', KEYS[1], raised(marker, ARGV[4], ''))
elseif number then
  redis.call('SET', KEYS[1], 'b' .. ARGV[3])
end
return outcome
