-- Reads a page of a list together with the lease, so that both are of one moment.
--
-- KEYS: lease, list index. ARGV: prefix of the document keys, lower end (BYLEX), limit.
-- Returns the lease (false if none), the last entry of the page if more follow (else ''), then the documents.

local limit = tonumber(ARGV[3])
local entries = redis.call('ZRANGE', KEYS[2], ARGV[2], '+', 'BYLEX', 'LIMIT', 0, limit + 1)
local more = #entries > limit
local reply = { redis.call('GET', KEYS[1]), more and entries[limit] or '' }
local documents = {}
for i = 1, math.min(#entries, limit) do
  local entry = entries[i]
  local length = struct.unpack('>I4', entry, #entry - 3)
  documents[i] = ARGV[1] .. string.sub(entry, #entry - 3 - length, #entry - 4)
end
if #documents > 0 then
  for i, document in ipairs(redis.call('MGET', unpack(documents))) do
    reply[2 + i] = document
  end
end
return reply
