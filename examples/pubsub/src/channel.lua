-- One channel, whose messages all nodes share.
--
-- KEYS      the channel's numbers, and its stream
-- ARGV      publish TEXT KEEP CHANNEL | read FROM BYTES STAMP
--
-- publish returns the message's id, or 0 if there is no memory for it. read returns the first id of the channel's life,
-- the next one, and then entries and texts, from an id on, of about so many bytes.
--
-- An entry is ID-STAMP. The stamp is the time at which it was published, by which it is told from another message that
-- was given the same id because the engine has lost this one. A node that reads says which stamp the message before FROM
-- has there, if it knows. If the engine has lost messages that a node has, the channel begins a new life, with ids
-- that were never given.
local meta, stream = KEYS[1], KEYS[2]
-- Milliseconds after which a channel that is not used is forgotten, and one to which nothing was ever published.
local LIFE, EMPTY_LIFE = 30 * 24 * 60 * 60 * 1000, 60 * 60 * 1000
local call = redis.call
-- Ids go on increasing over the lives of a channel: they begin at the microseconds of the clock.
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function show(id)
    return string.format('%.0f', id)
end

local function error_of(result)
    return type(result) == 'table' and result.err
end

-- Whether a command was refused for lack of memory. Only the first write of a script can be.
local function has_no_memory(result)
    return error_of(result) and string.sub(result.err, 1, 3) == 'OOM'
end

-- Another program's value under a key of this channel is an error of this channel only.
local function refuse(result)
    if string.sub(result.err, 1, 9) == 'WRONGTYPE' then
        return redis.error_reply('CHANNEL ' .. result.err)
    end
    return result
end

local numbers = redis.pcall('HMGET', meta, 'first', 'next')
if error_of(numbers) then
    return refuse(numbers)
end
local first, next_id = tonumber(numbers[1]), tonumber(numbers[2])

-- Begins a life of the channel.
local function begin(id, following)
    local made = redis.pcall('HSET', meta, 'first', show(id), 'next', show(following))
    if not error_of(made) then
        first, next_id = id, following
        call('PEXPIRE', meta, EMPTY_LIFE)
    end
    return made
end

if not next_id then
    local made = begin(now, now)
    if has_no_memory(made) then
        return ARGV[1] == 'publish' and 0 or { now, now }
    elseif error_of(made) then
        return refuse(made)
    end
end

if ARGV[1] == 'publish' then
    local text, keep, channel = ARGV[2], ARGV[3], ARGV[4]
    local entry = show(next_id) .. '-' .. show(now)
    local added = redis.pcall('XADD', stream, 'MAXLEN', keep, entry, 'm', text)
    if has_no_memory(added) then
        return 0
    elseif error_of(added) then
        return refuse(added)
    end
    call('HSET', meta, 'next', show(next_id + 1))
    call('PEXPIRE', meta, LIFE)
    call('PEXPIRE', stream, LIFE)
    call('SPUBLISH', channel, entry .. ' ' .. text)
    return next_id
end

local from, bytes, stamp = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local is_lost = from > next_id
if stamp ~= '' and not is_lost then
    local id = show(from - 1)
    local before = redis.pcall('XRANGE', stream, id .. '-0', id)
    if error_of(before) then
        return refuse(before)
    end
    is_lost = before[1] and before[1][1] ~= id .. '-' .. stamp
end
if is_lost then
    -- Its first id is no message's, so that all readers are told of a gap. Without memory it goes on as it was.
    local id = math.max(now, from, next_id)
    begin(id, id + 1)
end
call('PEXPIRE', meta, first == next_id and EMPTY_LIFE or LIFE)
local entries = redis.pcall('XRANGE', stream, show(math.max(from, first)) .. '-0', '+', 'COUNT', 64)
if error_of(entries) then
    return refuse(entries)
end
local result = { first, next_id }
for _, entry in ipairs(entries) do
    if bytes <= 0 then
        break
    end
    local text = entry[2][2]
    bytes = bytes - #text
    result[#result + 1] = entry[1]
    result[#result + 1] = text
end
return result
