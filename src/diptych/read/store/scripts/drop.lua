-- Ends a generation, which is neither read nor written from now on.
--
-- KEYS: lease, marker. ARGV: run id, replication id, the lease's text. Returns OK or ELSEWHERE.

if not is_here(ARGV[1], ARGV[2]) then
  return 'ELSEWHERE'
end
if redis.call('GET', KEYS[1]) == ARGV[3] then
  redis.call('DEL', KEYS[1])
end
redis.call('DEL', KEYS[2])
return 'OK'
