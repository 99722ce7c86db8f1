-- Ends generations before their keys are deleted: they are neither written nor published from now on.
--
-- KEYS: lease, then the markers. ARGV: run id, replication id, then the generations. Returns OK, ELSEWHERE, or
-- FOREIGN (a leased generation is among them, so it is another database's, and nothing is done).

if not is_here(ARGV[1], ARGV[2]) then
  return 'ELSEWHERE'
end
-- * In one step. Between a read that found no lease and the first deletion another database's keeper could publish a
-- lease, and its queries would take deleted documents for rows that are not there.
local leased = leased_here(KEYS[1], ARGV[1], ARGV[2])
for i = 3, #ARGV do
  if ARGV[i] == leased then
    return 'FOREIGN'
  end
end
for i = 2, #KEYS do
  redis.call('DEL', KEYS[i])
end
return 'OK'
