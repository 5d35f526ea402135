-- Commits a batch of events, if the epoch is the owner's and all batches before are here.
-- KEYS: the partition, then the stream of each node that gets something.
-- ARGV: epoch, number of the batch, how many arguments of the fields to set, of the fields to delete, those, and for each
-- stream: the field of its last id, the channel, the head of the message, the id as text, the id in bytes, the message.
local now = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'b' .. (ARGV[1] + 1))
local epoch, mine = tonumber(now[1]), tonumber(ARGV[1])
if not epoch or epoch < mine then
  return {'lost'}
end
if epoch > mine then
  return {'fenced', now[3]}
end
local last, number = tonumber(now[2]), tonumber(ARGV[2])
if last >= number then
  return {'done'}
end
if last < number - 1 then
  return {'lost'}
end
-- A call takes some thousand arguments at most.
local at = 5
local function each(count, command)
  local stop = at + count
  while at < stop do
    local to = math.min(at + 4000, stop) - 1
    redis.call(command, KEYS[1], unpack(ARGV, at, to))
    at = to + 1
  end
end
each(tonumber(ARGV[3]), 'HSET')
each(tonumber(ARGV[4]), 'HDEL')
for i = 2, #KEYS do
  local field, channel, head, text, id, message = unpack(ARGV, at, at + 5)
  at = at + 6
  local before = redis.call('HGET', KEYS[1], field) or string.rep('\0', 16)
  redis.call('HSET', KEYS[1], field, id)
  redis.call('XADD', KEYS[i], 'MAXLEN', '~', 10000, text, 'm', message)
  redis.call('PUBLISH', channel, head .. id .. before .. message)
end
return {'done'}
