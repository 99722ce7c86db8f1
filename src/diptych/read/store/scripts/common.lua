-- What the scripts share; put before each of them.

-- Whether this is the Redis that the sender means: the same process (it was not restarted, perhaps from an old dump),
-- the same history (it was not demoted and promoted, perhaps with the data of a lagging replica), and a master.
--
-- * Asked in the script itself, since a server may change between a connection's greeting and its next message.
--   Without it a write reaches a Redis that lacks earlier ones; it is acknowledged there, and a lease published there
--   would make queries trust what was lost.
local function is_here(run_id, replication_id)
  local info = redis.call('INFO', 'server', 'replication')
  return string.match(info, 'run_id:(%x+)') == run_id
    and string.match(info, 'master_replid:(%x+)') == replication_id
    and string.match(info, 'role:(%a+)') == 'master'
end

-- The generation and the history that the lease of this server names; nil if there is none.
--
-- * A lease that names another server is not in force, and may stay for long: it came with that server's data, and ends
--   by that server's clock.
local function leased_here(key, run_id, replication_id)
  local run, replication, generation, history =
    string.match(redis.call('GET', key) or '', '^(%x+):(%x+):([^:]+):([^:]+)$')
  if run == run_id and replication == replication_id then
    return generation, history
  end
end

-- Whether a stamp is greater than another; both are 8 bytes, big endian.
--
-- As numbers, in halves: Lua compares strings by the locale, and its numbers hold 53 bits.
local function is_newer(stamp, than)
  local high, low = struct.unpack('>I4I4', stamp)
  local than_high, than_low = struct.unpack('>I4I4', than)
  return high > than_high or (high == than_high and low > than_low)
end

-- A generation's marker is 'b<n>' after the builder's script number n, 'f<floor>' once it is built (what transactions
-- below the floor have done is in), and 'f<floor>:<pass>' after a pass.
local function floor_of(marker)
  return tonumber(string.match(marker, '^f(%d+)'))
end

-- The marker with a floor of at least this, and a pass of at least this number ('' leaves it).
local function raised(marker, floor, pass)
  local number = tonumber(string.match(marker, '^f%d+:(%d+)$')) or 0
  number = math.max(number, tonumber(pass) or 0)
  floor = math.max(tonumber(floor), floor_of(marker) or 0)
  return string.format(number > 0 and 'f%.0f:%.0f' or 'f%.0f', floor, number)
end
