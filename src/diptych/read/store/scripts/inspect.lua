-- Reads what a keeper has to know before a pass, all of one moment.
--
-- KEYS: marker, lease, generations, carried.
-- Returns seconds and microseconds of the clock, run id, replication id, role, eviction policy, the marker and the
-- lease ('' if there is none), the generations, the snapshot that is carried ('' for none), the memory used and its
-- limit (0: none).

local generations = redis.pcall('SMEMBERS', KEYS[3])
local time = redis.call('TIME')
local info = redis.call('INFO', 'server', 'replication', 'memory')
local function field(name)
  return string.match(info, name .. ':([^\r\n]*)') or ''
end
return {
  time[1], time[2], field('run_id'), field('master_replid'), field('role'), field('maxmemory_policy'),
  text(KEYS[1]), text(KEYS[2]), generations.err and {} or generations, text(KEYS[4]), field('used_memory'), field('maxmemory'),
}
