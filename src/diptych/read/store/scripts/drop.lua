-- Ends a generation, which is neither read nor written from now on.
--
-- KEYS: lease, marker, switching.
-- ARGV: run id, replication id, the lease's text, and for how many milliseconds queries may wait for the lease of the
--       generation that takes its place ('' if there is none).
-- Returns OK or ELSEWHERE.

if not is_here(ARGV[1], ARGV[2]) then
  return 'ELSEWHERE'
end
if text(KEYS[1]) == ARGV[3] then
  redis.call('DEL', KEYS[1])
end
redis.call('DEL', KEYS[2])
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[3], '', 'PX', ARGV[4])
end
return 'OK'
