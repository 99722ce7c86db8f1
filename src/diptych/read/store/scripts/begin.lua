-- Begins a generation, which may be written from now on.
--
-- KEYS: marker, generations. ARGV: run id, replication id, generation. Returns OK or ELSEWHERE.

if not is_here(ARGV[1], ARGV[2]) then
  return 'ELSEWHERE'
end
local added = redis.pcall('SADD', KEYS[2], ARGV[3])
if type(added) == 'table' then -- somebody has put something else there
  redis.call('DEL', KEYS[2])
  redis.call('SADD', KEYS[2], ARGV[3])
end
redis.call('SET', KEYS[1], 'b0', 'NX')
return 'OK'
