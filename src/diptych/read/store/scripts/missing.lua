-- Finds the changes that are not in a generation yet.
--
-- KEYS: marker, then the document keys. ARGV: run id, replication id, then for each document the stamp (8 bytes) and
-- the transaction of a change.
-- Returns the numbers, from 1, of the missing changes; or ELSEWHERE (another Redis) or GONE (no such generation).

if not is_here(ARGV[1], ARGV[2]) then
  return 'ELSEWHERE'
end
local marker = redis.call('GET', KEYS[1])
if not marker then
  return 'GONE'
end
local floor = floor_of(marker) or 0
local missing = {}
for k = 2, #KEYS do
  local stamp, transaction = ARGV[2 * k - 1], tonumber(ARGV[2 * k])
  if transaction >= floor then
    local stored = redis.call('GETRANGE', KEYS[k], 0, 7)
    if stored == '' or is_newer(stamp, stored) then
      missing[#missing + 1] = k - 1
    end
  end
end
return missing
