-- Looks at documents with everything that belongs to them, at one moment.
--
-- KEYS: marker, entries, aside, n lists, then the document keys, of which the last c are second addresses.
-- ARGV: run id, replication id, n, c, then for each document that is no copy, and each list, further entries to look
--       for, each behind its length in four bytes.
-- Returns ELSEWHERE (another Redis), or the marker (false if none), then for each document: what is stored, the record
-- of its list entries (false if none), 1 if it is counted as set aside, and for each list those of the recorded and
-- the further entries that are in it.

if not is_here(ARGV[1], ARGV[2]) then
  return 'ELSEWHERE'
end
local lists, copies = tonumber(ARGV[3]), tonumber(ARGV[4])
local after_prefix = #KEYS[1] - #'marker' + #'d:' + 1

local function present(list, entries, further)
  local found, seen = {}, {}
  for _, some in ipairs({ entries, further }) do
    for _, entry in ipairs(some) do
      if not seen[entry] and redis.call('ZSCORE', list, entry) == '0' then
        found[#found + 1] = entry
      end
      seen[entry] = true
    end
  end
  return found
end

local at, reply = 5, { redis.call('GET', KEYS[1]) }
for k = 4 + lists, #KEYS do
  local one = redis.call('MGET', KEYS[k])
  if k <= #KEYS - copies then
    local key = string.sub(KEYS[k], after_prefix)
    local record = redis.call('HGET', KEYS[2], key)
    one[2], one[3] = record, redis.call('ZSCORE', KEYS[3], KEYS[k]) and 1 or 0
    local recorded = entries_in(record, lists, key)
    for i = 1, lists do
      one[3 + i] = present(KEYS[3 + i], recorded[i], unpacked(ARGV[at]))
      at = at + 1
    end
  end
  reply[#reply + 1] = one
end
return reply
