-- Writes documents with their list entries into a generation, each only if it is newer than the stored document.
--
-- KEYS: marker, entries (hash: the row's key -> its list entries), tombstones (sorted set: when they may go), aside
--       (sorted set: documents of set-aside rows), recent (sorted set: positions of commands' changes that are in),
--       carried (the last snapshot whose changes are all in, by commands), n lists, then the document keys, of which the last c are second addresses, for copies of documents.
-- ARGV: run id, replication id, the number of a builder's script ('' for changes), the floor that the generation has
--       afterwards ('' for the present floor), the first position of commands' changes to be returned ('' if these
--       are not commands' changes), n, c, the numbers of the lists in which a row has several entries ('' for none),
--       stamp and text of the snapshot whose changes are all in with these documents ('' for none),
--       then for each document: its stamp (8 bytes), its transaction, the floor at
--       which a tombstone may go ('' if not known), its body ('' for a deleted document; beginning with a zero byte
--       for a set-aside row), and its n list entries ('' in a list without a place for it; several entries are each
--       behind their length in four bytes). A copy has no entries, and is not counted among the documents of set-aside
--       rows.
-- Returns OK (each document is written, or the stored document is as new), ELSEWHERE (another Redis), GONE (no such
-- generation here), CLOSED or GAP (a builder's script out of turn). For commands, in place of OK: the number 1, then
-- the positions of commands' changes that are in, 8 bytes each.

local MOST_RECENT = 1024

local function position_of(stamp)
  local high, low = struct.unpack('>I4I4', stamp)
  return string.format('%.0f', high * 4294967296 + low)
end

local has_several = {}
for i in string.gmatch(ARGV[8], '%d+') do
  has_several[tonumber(i)] = true
end

-- Puts the entries of a row in the place of its former ones; those that are in both stay.
local function replace(list, former, entries)
  local is_former, is_kept = {}, {}
  for i = 1, #entries do
    is_kept[entries[i]] = true
  end
  for i = 1, #former do
    is_former[former[i]] = true
    if not is_kept[former[i]] then
      redis.call('ZREM', list, former[i])
    end
  end
  for i = 1, #entries do
    if not is_former[entries[i]] then
      redis.call('ZADD', list, 0, entries[i])
    end
  end
end

if not is_here(ARGV[1], ARGV[2]) then
  return 'ELSEWHERE'
end
local marker = redis.call('GET', KEYS[1])
if not marker then
  -- The data were lost, or another generation has replaced this one.
  return 'GONE'
end

local number, floor = tonumber(ARGV[3]), 0
if number then
  -- A builder's scripts are accepted one after the other and only once: a late duplicate would bring back, at
  -- position 0, what was deleted and whose tombstone has been purged.
  local done = tonumber(string.match(marker, '^b(%d+)$'))
  if not done then
    return marker == 'f' .. ARGV[4] and 'OK' or 'CLOSED'
  end
  if number <= done then
    return 'OK'
  end
  if number > done + 1 then
    return 'GAP'
  end
else
  floor = floor_of(marker) or 0
end

local recent = ARGV[5] ~= ''
local lists = tonumber(ARGV[6])
local first_copy = #KEYS - tonumber(ARGV[7]) + 1
-- In the hash, the names of documents without what all names of the generation begin with: it is longer than most keys.
local after_prefix = #KEYS[1] - #'marker' + #'d:' + 1
local at = 10
for k = 7 + lists, #KEYS do
  local document, stamp, body = KEYS[k], ARGV[at], ARGV[at + 3]
  local is_copy = k >= first_copy
  -- Changes below the floor are in already. Were they written, a late message could bring back a document that was
  -- deleted since, once the tombstone that would refuse the message has been purged.
  if number or tonumber(ARGV[at + 1]) >= floor then
    local stored = redis.call('GETRANGE', document, 0, 8)
    -- * Without the comparison a late or repeated message would put an older state over a newer one.
    local is_set = stored == '' or is_newer(stamp, stored)
    if is_set and is_copy then
      redis.call('SET', document, stamp .. body)
    elseif is_set then
      local key = string.sub(document, after_prefix)
      local former = redis.call('HGET', KEYS[2], key)
      former = former and cmsgpack.unpack(former)
      local entries = {}
      for i = 1, lists do
        entries[i] = ARGV[at + 3 + i]
        if has_several[i] then
          entries[i] = unpacked(entries[i])
          replace(KEYS[6 + i], former and former[i] or {}, entries[i])
        else
          if former then
            redis.call('ZREM', KEYS[6 + i], former[i])
          end
          if entries[i] ~= '' then
            redis.call('ZADD', KEYS[6 + i], 0, entries[i])
          end
        end
      end
      redis.call('SET', document, stamp .. body)
      if string.byte(body) == 0 then
        redis.call('ZADD', KEYS[4], 0, document)
      elseif string.byte(stored, 9) == 0 then
        redis.call('ZREM', KEYS[4], document)
      end
      if body == '' then
        redis.call('HDEL', KEYS[2], key)
      elseif lists > 0 then
        redis.call('HSET', KEYS[2], key, cmsgpack.pack(entries))
      end
    end
    -- A pass knows when its tombstone may go; the command that wrote the same tombstone did not.
    if body == '' and ARGV[at + 2] ~= '' and (is_set or stored == stamp) then
      redis.call('ZADD', KEYS[3], ARGV[at + 2], stamp .. document)
    end
  end
  if recent and not is_copy then
    redis.call('ZADD', KEYS[5], position_of(stamp), stamp)
  end
  at = at + 4 + (is_copy and 0 or lists)
end

if ARGV[4] ~= '' then
  redis.call('SET', KEYS[1], raised(marker, ARGV[4], ''))
elseif number then
  redis.call('SET', KEYS[1], 'b' .. ARGV[3])
end
if ARGV[9] ~= '' then
  local stored = redis.call('GETRANGE', KEYS[6], 0, 7)
  if stored == '' or is_newer(string.sub(ARGV[9], 1, 8), stored) then
    redis.call('SET', KEYS[6], ARGV[9])
  end
end
if recent then
  redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -MOST_RECENT - 1)
  return { 1, table.concat(redis.call('ZRANGE', KEYS[5], ARGV[5], '+inf', 'BYSCORE')) }
end
return 'OK'
