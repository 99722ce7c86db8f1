-- The common part of the scripts, put before each that needs it.

-- Says if this is the incarnation meant by the sender: the same process (not restarted, perhaps from an old dump),
-- the same history (not demoted and promoted, perhaps with the data of a lagging replica), and a master.
--
-- * Asked in the script itself, since a server may change between a connection's greeting and its next message.
--   Without this check a write reaches a Redis that lacks earlier writes; it is acknowledged there, and a lease
--   published there would make queries trust what was lost.
local function is_here(run_id, replication_id)
  local info = redis.call('INFO', 'server', 'replication')
  return string.match(info, 'run_id:(%x+)') == run_id
    and string.match(info, 'master_replid:(%x+)') == replication_id
    and string.match(info, 'role:(%a+)') == 'master'
end

-- Returns a text; '' for none, and for what somebody has put in its place that is no text.
local function text(key)
  local found = redis.pcall('GET', key)
  return type(found) == 'string' and found or ''
end

-- Returns the generation and the history in the lease of this server; nil if there is no such lease.
--
-- * A lease that names another server is not in force, and may stay for long: it came with that server's data, and
--   ends by that server's clock.
local function leased_here(key, run_id, replication_id)
  local run, replication, generation, history =
    string.match(text(key), '^(%x+):(%x+):([^:]+):([^:]+)$')
  if run == run_id and replication == replication_id then
    return generation, history
  end
end

-- Says if a stamp is greater than another; both are 8 bytes, big endian.
--
-- Compared as numbers, in halves: Lua compares strings by the locale, and its numbers hold 53 bits.
local function is_newer(stamp, than)
  local high, low = struct.unpack('>I4I4', stamp)
  local than_high, than_low = struct.unpack('>I4I4', than)
  return high > than_high or (high == than_high and low > than_low)
end

-- Returns the floor of a marker; nil while the generation is built. A marker is 'b<n>' after the builder's script
-- number n, 'f<floor>' once the generation is built (all changes of transactions below the floor are in), and
-- 'f<floor>:<pass>' after a pass.
local function floor_of(marker)
  return tonumber(string.match(marker, '^f(%d+)'))
end

-- Returns the marker with a floor of at least this, and a pass of at least this number ('' leaves the number).
local function raised(marker, floor, pass)
  local number = tonumber(string.match(marker, '^f%d+:(%d+)$')) or 0
  number = math.max(number, tonumber(pass) or 0)
  floor = math.max(tonumber(floor), floor_of(marker) or 0)
  return string.format(number > 0 and 'f%.0f:%.0f' or 'f%.0f', floor, number)
end

-- Returns entries that are each behind their length in four bytes.
local function unpacked(entries)
  local found, at = {}, 1
  while at <= #entries do
    found[#found + 1], at = struct.unpack('>I4c0', entries, at)
  end
  return found
end

-- Returns the entries in the record of a document's list entries, a table for each list; empty ones for a record that
-- is missing or can't be read. Entries of other documents are left out.
local function entries_in(record, lists, key)
  local is_read, found = pcall(cmsgpack.unpack, record or '')
  local entries, tail = {}, key .. struct.pack('>I4', #key)
  for i = 1, lists do
    local own = is_read and type(found) == 'table' and found[i] or {}
    entries[i] = {}
    for _, entry in ipairs(type(own) == 'table' and own or { own }) do
      if type(entry) == 'string' and string.sub(entry, -#tail) == tail then
        table.insert(entries[i], entry)
      end
    end
  end
  return entries
end
