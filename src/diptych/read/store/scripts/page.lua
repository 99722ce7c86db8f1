-- Reads a page of a list together with the lease, so both are of one moment.
--
-- KEYS: lease, list. ARGV: prefix of the document keys, limit, 1 to read backwards, offset, 1 to count; then for each
-- prefix of selected entries: its length, the ends (BYLEX) of the range that is read, and those of the range on the
-- other side of the page cursor ('' without a cursor).
-- Returns the lease (false if none), the first and the last entry of the page without their prefixes, 1 if more entries
-- follow, 1 if there are entries on the other side, the number of selected entries (-1 if not asked), the documents.

local byte, sub = string.byte, string.sub
local list, prefix, limit, backwards = KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local offset, other, total = tonumber(ARGV[4]), 0, ARGV[5] == '1' and 0 or -1

local function range(from, to, first, count)
  if backwards then
    return redis.call('ZRANGE', list, to, from, 'BYLEX', 'REV', 'LIMIT', first, count)
  end
  return redis.call('ZRANGE', list, from, to, 'BYLEX', 'LIMIT', first, count)
end

-- Entries are read by their rank behind an offset: BYLEX would step over each of those before.
local function behind(from, to)
  local first = from == '-' and 0 or redis.call('ZLEXCOUNT', list, '-', '(' .. sub(from, 2))
  local number = redis.call('ZLEXCOUNT', list, from, to)
  local last = math.min(offset + limit, number - 1)
  return last < offset and {} or redis.call('ZRANGE', list, first + offset, first + last)
end

-- Says if a string is before another by their bytes. Lua's own comparison is by the locale.
local function is_before(one, another)
  local shorter = math.min(#one, #another)
  for i = 1, shorter, 8 do
    local a, b = sub(one, i, i + 7), sub(another, i, i + 7)
    if a ~= b then
      for j = 1, 8 do
        local left, right = byte(a, j) or -1, byte(b, j) or -1
        if left ~= right then
          return left < right
        end
      end
    end
  end
  return #one < #another
end

-- Adds a run to those in order: `at` is the number of its next entry, `rest` what follows the prefix there.
local function put(runs, run)
  local entry = run.found[run.at]
  if not entry then
    return
  end
  run.rest = sub(entry, run.length + 1)
  local place = #runs + 1
  while place > 1 do
    local before = runs[place - 1].rest
    -- The run that is next is the last one of `runs`.
    if is_before(before, run.rest) == not backwards then
      place = place - 1
    else
      break
    end
  end
  table.insert(runs, place, run)
end

local runs = {}
for i = 6, #ARGV, 5 do
  local from, to, other_from, other_to = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local found = offset > 0 and behind(from, to) or range(from, to, 0, limit + 1)
  runs[#runs + 1] = { found = found, length = tonumber(ARGV[i]), at = 1 }
  if other_from ~= '' and other == 0 then
    other = #redis.call('ZRANGE', list, other_from, other_to, 'BYLEX', 'LIMIT', 0, 1)
  end
  if total >= 0 then
    total = total + redis.call('ZLEXCOUNT', list, from, to)
    if other_from ~= '' then
      total = total + redis.call('ZLEXCOUNT', list, other_from, other_to)
    end
  end
end

local entries, shown, first, last = {}, 0, '', ''
if #runs == 1 then
  entries = runs[1].found
  shown = math.min(#entries, limit)
  if shown > 0 then
    first, last = sub(entries[1], runs[1].length + 1), sub(entries[shown], runs[1].length + 1)
  end
else
  local ordered, rests = {}, {}
  for i = 1, #runs do
    put(ordered, runs[i])
  end
  while #entries <= limit and #ordered > 0 do
    local run = table.remove(ordered)
    entries[#entries + 1], rests[#rests + 1] = run.found[run.at], run.rest
    run.at = run.at + 1
    put(ordered, run)
  end
  shown = math.min(#entries, limit)
  first, last = rests[1] or '', rests[shown] or ''
end

local more = #entries > limit and 1 or 0
-- The table of entries becomes that of the documents' keys: a new one would grow step by step.
entries[limit + 1] = nil
for i = 1, shown do
  -- From the entry to the document: its key is before the key's length, in four bytes. `struct.unpack` takes longer.
  local entry = entries[i]
  local a, b, c, d = byte(entry, -4, -1)
  entries[i] = prefix .. sub(entry, -4 - (((a * 256 + b) * 256 + c) * 256 + d), -5)
end
if backwards then
  for i = 1, math.floor(shown / 2) do
    entries[i], entries[shown + 1 - i] = entries[shown + 1 - i], entries[i]
  end
  first, last = last, first
end
local documents = shown > 0 and redis.call('MGET', unpack(entries)) or {}
return { redis.call('GET', KEYS[1]), first, last, more, other, total, documents }
