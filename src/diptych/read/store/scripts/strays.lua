-- Looks for what does not go together, in a part of a list or of the records of list entries.
--
-- KEYS: entries, then the list (none: the records are looked at).
-- ARGV: prefix of the document keys, the cursor of SCAN, how many to look at, about, and the number of the list.
-- Returns the next cursor, how many were looked at, and of these the entries that their document's record does not have,
-- or the keys of records without a document.

local byte, sub = string.byte, string.sub
local strays = {}

local function key_in(entry)
  if #entry < 4 then
    return ''
  end
  local a, b, c, d = byte(entry, -4, -1)
  return sub(entry, -4 - (((a * 256 + b) * 256 + c) * 256 + d), -5)
end

local function has(recorded, entry)
  if type(recorded) ~= 'table' then
    return recorded == entry
  end
  for i = 1, #recorded do
    if recorded[i] == entry then
      return true
    end
  end
  return false
end

local command = KEYS[2] and 'ZSCAN' or 'HSCAN'
local cursor, found = unpack(redis.call(command, KEYS[2] or KEYS[1], ARGV[2], 'COUNT', ARGV[3]))
local list = tonumber(ARGV[4])
for i = 1, #found, 2 do
  local one, is_right = found[i], false
  if KEYS[2] then
    local record = redis.call('HGET', KEYS[1], key_in(one))
    local is_read, recorded = pcall(cmsgpack.unpack, record or '')
    is_right = is_read and type(recorded) == 'table' and has(recorded[list], one)
  else
    local first = redis.pcall('GETRANGE', ARGV[1] .. one, 8, 8)
    is_right = type(first) == 'string' and first ~= ''
  end
  if not is_right then
    strays[#strays + 1] = one
  end
end
return { cursor, #found / 2, strays }
