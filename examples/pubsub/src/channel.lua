-- One channel, whose messages all nodes share.
--
-- KEYS      the channel's numbers, and its stream
-- ARGV      publish TEXT KEEP CHANNEL | read FROM BYTES
--
-- publish returns the message's id, or 0 if there is no memory for it. read returns the first id of the channel's life,
-- the next one, and then ids and texts, from an id on, of about so many bytes.
local meta, stream = KEYS[1], KEYS[2]
-- Milliseconds after which a channel that is not used is forgotten, and one to which nothing was ever published.
local LIFE, EMPTY_LIFE = 30 * 24 * 60 * 60 * 1000, 60 * 60 * 1000
local call = redis.call

-- Whether a command was refused for lack of memory. Only the first write of a script can be.
local function has_no_memory(result)
    return type(result) == 'table' and result.err and string.sub(result.err, 1, 3) == 'OOM'
end

local function show(id)
    return string.format('%.0f', id)
end

local first, next_id = unpack(call('HMGET', meta, 'first', 'next'))
if not next_id then
    -- Ids go on increasing over the lives of a channel: they begin at the microseconds of the clock.
    local clock = call('TIME')
    next_id = clock[1] * 1000000 + clock[2]
    first = next_id
    local made = redis.pcall('HSET', meta, 'first', show(first), 'next', show(next_id))
    if has_no_memory(made) then
        return ARGV[1] == 'publish' and 0 or { first, next_id }
    elseif type(made) == 'table' and made.err then
        return made
    end
end
first, next_id = tonumber(first), tonumber(next_id)

if ARGV[1] == 'publish' then
    local text, keep, channel = ARGV[2], ARGV[3], ARGV[4]
    local added = redis.pcall('XADD', stream, 'MAXLEN', keep, show(next_id) .. '-0', 'm', text)
    if has_no_memory(added) then
        return 0
    elseif type(added) == 'table' and added.err then
        return added
    end
    call('HSET', meta, 'next', show(next_id + 1))
    call('PEXPIRE', meta, LIFE)
    call('PEXPIRE', stream, LIFE)
    call('SPUBLISH', channel, show(next_id) .. ' ' .. text)
    return next_id
end

call('PEXPIRE', meta, first == next_id and EMPTY_LIFE or LIFE)
local from, bytes = ARGV[2], tonumber(ARGV[3])
local result = { first, next_id }
for _, entry in ipairs(call('XRANGE', stream, from .. '-0', '+', 'COUNT', 64)) do
    local text = entry[2][2]
    if bytes <= 0 then
        break
    end
    bytes = bytes - #text
    result[#result + 1] = string.match(entry[1], '^(%d+)')
    result[#result + 1] = text
end
return result
