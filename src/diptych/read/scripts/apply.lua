-- Writes documents with their list entries into one generation of a read model, each only if it is newer.
--
-- KEYS: lease, marker, entries (hash: document key -> its entries), n list indexes, then the document keys.
-- ARGV: the lease that this process believes in ('' if none), n, then for each document
--       its log position (8 bytes, big endian), its body ('' for a deleted one) and its n list entries.
-- Returns OK, GONE (the generation is no longer there) or FOREIGN (another process looks after this read model).

local lease = redis.call('GET', KEYS[1])
if lease and lease ~= ARGV[1] then
  -- The process that trusts this lease has not heard of our change: nobody may trust it any more.
  redis.call('SET', KEYS[1], 'shared')
  return 'FOREIGN'
end
if not lease or redis.call('EXISTS', KEYS[2]) == 0 then
  return 'GONE'
end

-- As numbers: Lua compares strings by the locale.
local function position(stamp)
  local high, low = struct.unpack('>I4I4', stamp)
  return high * 4294967296 + low
end

local lists = tonumber(ARGV[2])
local at = 3
for k = 4 + lists, #KEYS do
  local document = KEYS[k]
  local stored = redis.call('GETRANGE', document, 0, 7)
  if stored == '' or position(stored) < position(ARGV[at]) then
    local former = redis.call('HGET', KEYS[3], document)
    if former then
      for i, entry in ipairs(cmsgpack.unpack(former)) do
        redis.call('ZREM', KEYS[3 + i], entry)
      end
    end
    redis.call('SET', document, ARGV[at] .. ARGV[at + 1])
    if ARGV[at + 1] == '' then
      redis.call('HDEL', KEYS[3], document)
    elseif lists > 0 then
      local entries = {}
      for i = 1, lists do
        entries[i] = ARGV[at + 1 + i]
        redis.call('ZADD', KEYS[3 + i], 0, entries[i])
      end
      redis.call('HSET', KEYS[3], document, cmsgpack.pack(entries))
    end
  end
  at = at + 2 + lists
end
return 'OK'
