-- Lets readers trust a rebuilt generation, unless another process has written meanwhile.
--
-- KEYS: lease, marker. ARGV: the lease of the building, the lease of the serving. Returns 1 if it was published.

if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
