-- Reads a page of a list together with the lease, so both are of one moment.
--
-- KEYS: lease, list. ARGV: prefix of the document keys, lower end (BYLEX), limit.
-- Returns the lease (false if none), the last entry of the page if more follow (else ''), and the documents.

local byte, sub = string.byte, string.sub
local prefix, limit = ARGV[1], tonumber(ARGV[3])
local found = redis.call('ZRANGE', KEYS[2], ARGV[2], '+', 'BYLEX', 'LIMIT', 0, limit + 1)
local last = ''
if #found > limit then
  found[limit + 1] = nil
  last = found[limit]
end
for i = 1, #found do
  -- From the entry to the document: its key is before the key's length, in four bytes. `struct.unpack` takes longer.
  local entry = found[i]
  local a, b, c, d = byte(entry, -4, -1)
  found[i] = prefix .. sub(entry, -4 - (((a * 256 + b) * 256 + c) * 256 + d), -5)
end
if #found > 0 then
  found = redis.call('MGET', unpack(found))
end
return { redis.call('GET', KEYS[1]), last, found }
