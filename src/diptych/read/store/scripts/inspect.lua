-- Reads what a keeper has to know before a pass, all of one moment.
--
-- KEYS: marker, lease, generations, carried.
-- Returns seconds and microseconds of the clock, run id, replication id, role, eviction policy, the marker and the
-- lease ('' if there is none), the generations, the snapshot that is carried ('' for none), the memory used and its
-- limit (0: none).

local time = redis.call('TIME')
local info = redis.call('INFO', 'server', 'replication', 'memory')
local function field(name)
  return string.match(info, name .. ':([^\r\n]*)') or ''
end
return {
  time[1], time[2], field('run_id'), field('master_replid'), field('role'), field('maxmemory_policy'),
  redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '',
  redis.call('SMEMBERS', KEYS[3]), redis.call('GET', KEYS[4]) or '', field('used_memory'), field('maxmemory'),
}
