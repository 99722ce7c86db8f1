-- Begins a generation, which may be written from now on.
--
-- KEYS: marker, generations. ARGV: run id, replication id, generation. Returns OK or ELSEWHERE.

if not is_here(ARGV[1], ARGV[2]) then
  return 'ELSEWHERE'
end
redis.call('SADD', KEYS[2], ARGV[3])
redis.call('SET', KEYS[1], 'b0', 'NX')
return 'OK'
