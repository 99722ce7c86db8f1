-- Puts right what was found wrong of documents, if it is still as it was found.
--
-- KEYS: marker, entries, aside, n lists, then the document keys, of which the last c are second addresses.
-- ARGV: run id, replication id, n, c, the numbers of the lists in which a row has several entries ('' for none), then
--       for each document: the floor from which on it may be replaced ('' if not at all), what was found stored, the
--       body of its row ('' without a row); if it is no copy also the record of list entries that was found, and for each
--       list the row's entries (several are each behind their length in four bytes), and further entries that were
--       found in it, each behind its length.
-- Returns the number of replaced documents, ELSEWHERE (another Redis) or GONE (no such generation).

if not is_here(ARGV[1], ARGV[2]) then
  return 'ELSEWHERE'
end
local marker = redis.call('GET', KEYS[1])
local floor = marker and floor_of(marker)
if not floor then
  return 'GONE'
end
local lists, copies = tonumber(ARGV[3]), tonumber(ARGV[4])
local after_prefix = #KEYS[1] - #'marker' + #'d:' + 1
local OLDEST = string.rep('\0', 8)
local has_several = {}
for i in string.gmatch(ARGV[5], '%d+') do
  has_several[tonumber(i)] = true
end

-- Leaves of these entries in a list those that it is to have, and adds what is missing.
local function set_right(list, entries, others)
  local stays = {}
  for _, entry in ipairs(entries) do
    stays[entry] = true
    redis.call('ZADD', list, 0, entry)
  end
  for _, some in ipairs(others) do
    for _, entry in ipairs(some) do
      if not stays[entry] then
        redis.call('ZREM', list, entry)
      end
    end
  end
end

local function store(document, body)
  if body == '' then
    redis.call('DEL', document)
  else
    redis.call('SET', document, OLDEST .. body)
  end
end

local at, replaced = 6, 0
for k = 4 + lists, #KEYS do
  local document, from, found, body = KEYS[k], tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
  -- * Only what was found wrong: another message may have written a newer document. And only once the floor refuses
  -- every change that the row's snapshot saw: the stamp 0 would let a late message put an older state over it.
  local is_due = from and from <= floor and (redis.call('MGET', document)[1] or '') == found
  if k > #KEYS - copies then
    if is_due then
      store(document, body)
      replaced = replaced + 1
    end
    at = at + 3
  else
    local key = string.sub(document, after_prefix)
    local record = redis.call('HGET', KEYS[2], key) or ''
    local recorded, entries = entries_in(record, lists, key), {}
    is_due = is_due and record == ARGV[at + 3]
    at = at + 4
    for i = 1, lists do
      local own, further = ARGV[at], unpacked(ARGV[at + 1])
      at = at + 2
      entries[i] = own
      if is_due and has_several[i] then
        entries[i] = unpacked(own)
      end
      if is_due then
        local kept = has_several[i] and entries[i] or { own ~= '' and own or nil }
        set_right(KEYS[3 + i], kept, { recorded[i], further })
      else
        -- Document and record are of somebody else by now, but what the lists have of them is always what is recorded.
        set_right(KEYS[3 + i], recorded[i], { further })
      end
    end
    if is_due then
      store(document, body)
      replaced = replaced + 1
      if body == '' or lists == 0 then
        redis.call('HDEL', KEYS[2], key)
      else
        redis.call('HSET', KEYS[2], key, cmsgpack.pack(entries))
      end
    end
    local stored = redis.pcall('GETRANGE', document, 8, 8)
    redis.call(stored == '\0' and 'ZADD' or 'ZREM', KEYS[3], unpack(stored == '\0' and { 0, document } or { document }))
  end
end
return replaced
