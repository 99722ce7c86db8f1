-- Reads a page of a list together with the lease, so both are of one moment.
--
-- KEYS: lease, list. ARGV: prefix of the document keys, limit, 1 to read backwards, offset, 1 to count; then for each
-- prefix of selected entries: its length, the ends (BYLEX) of the range that is read, and those of the range on the
-- other side of the page cursor ('' without a cursor).
-- Returns the lease (false if none), the first and the last entry of the page without their prefixes, 1 if more entries
-- follow, 1 if there are entries on the other side, the number of selected entries (-1 if not asked), the documents.

local byte, sub, min = string.byte, string.sub, math.min
local list, prefix, limit, backwards = KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local other, total, entries, shown, first, last = 0, ARGV[5] == '1' and 0 or -1, nil, 0, '', ''

if #ARGV == 10 then
  -- One prefix, as of nearly all pages. Nothing here is a function: Lua would make it anew for each page.
  local from, to, offset = ARGV[7], ARGV[8], tonumber(ARGV[4])
  if offset > 0 then
    -- Entries are read by their rank: BYLEX would step over each of those before.
    local before = from == '-' and 0 or redis.call('ZLEXCOUNT', list, '-', '(' .. sub(from, 2))
    local final = min(offset + limit, redis.call('ZLEXCOUNT', list, from, to) - 1)
    entries = final < offset and {} or redis.call('ZRANGE', list, before + offset, before + final)
  elseif backwards then
    entries = redis.call('ZRANGE', list, to, from, 'BYLEX', 'REV', 'LIMIT', 0, limit + 1)
  else
    entries = redis.call('ZRANGE', list, from, to, 'BYLEX', 'LIMIT', 0, limit + 1)
  end
  if ARGV[9] ~= '' then
    other = #redis.call('ZRANGE', list, ARGV[9], ARGV[10], 'BYLEX', 'LIMIT', 0, 1)
  end
  if total == 0 then
    total = redis.call('ZLEXCOUNT', list, from, to)
    total = ARGV[9] == '' and total or total + redis.call('ZLEXCOUNT', list, ARGV[9], ARGV[10])
  end
  shown = min(#entries, limit)
  if shown > 0 then
    local behind = tonumber(ARGV[6]) + 1
    first, last = sub(entries[1], behind), sub(entries[shown], behind)
  end
else
  -- Several prefixes: a run of entries of each, merged in the order of what follows the prefixes.
  -- Says if a string is before another by their bytes. Lua's own comparison is by the locale.
  local function is_before(one, another)
    for i = 1, min(#one, #another), 8 do
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
    -- The run that is next is the last one of `runs`.
    while place > 1 and is_before(runs[place - 1].rest, run.rest) == not backwards do
      place = place - 1
    end
    table.insert(runs, place, run)
  end

  local runs, rests = {}, {}
  for at = 6, #ARGV, 5 do
    local from, to, other_from, other_to = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    local found = backwards and redis.call('ZRANGE', list, to, from, 'BYLEX', 'REV', 'LIMIT', 0, limit + 1)
      or redis.call('ZRANGE', list, from, to, 'BYLEX', 'LIMIT', 0, limit + 1)
    put(runs, { found = found, length = tonumber(ARGV[at]), at = 1 })
    if other_from ~= '' and other == 0 then
      other = #redis.call('ZRANGE', list, other_from, other_to, 'BYLEX', 'LIMIT', 0, 1)
    end
    if total >= 0 then
      total = total + redis.call('ZLEXCOUNT', list, from, to)
      total = other_from == '' and total or total + redis.call('ZLEXCOUNT', list, other_from, other_to)
    end
  end
  entries = {}
  while #entries <= limit and #runs > 0 do
    local run = table.remove(runs)
    entries[#entries + 1], rests[#rests + 1] = run.found[run.at], run.rest
    run.at = run.at + 1
    put(runs, run)
  end
  shown = min(#entries, limit)
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
